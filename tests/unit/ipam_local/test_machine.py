"""Whatever happens in whatever order, crashes included: no address has two owners, and what was answered is kept."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipam.errors import PoolEmpty, StoreError
from ipam.journal import Journal, Owner
from ipam.local import Choice, LocalPool
from ipam.model import AddressState, PoolInterface

ADDRESSES = [f"10.0.0.{n}" for n in range(10, 18)]
PODS = [Owner(f"pod-{n}", "eth0") for n in range(10)]
COOLDOWN_S = 30.0

states = st.sampled_from([AddressState.AVAILABLE, AddressState.MARKED, AddressState.RELEASING])
pools = st.dictionaries(st.sampled_from(ADDRESSES), st.tuples(st.sampled_from(["eni-1", "eni-2"]), states))


class DiskFull(Exception):
    pass


class CrashingJournal(Journal):
    """Dies before or after the next commit when told to, as a machine does."""

    die: str = ""

    def _commit(self, statements) -> None:  # type: ignore[no-untyped-def]
        if self.die == "before":
            raise DiskFull
        super()._commit(statements)
        if self.die == "after":
            raise DiskFull


class Node(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a folder: thousands of fsyncs prove nothing here, the crashes are played.
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="plimsoll-machine-", dir=memory))
        self.wall_s, self.monotonic_s, self.boot = 1e9, 100.0, 0
        self.lives = 0
        self.acknowledged: dict[Owner, str] = {}
        self.unsure: set[Owner] = set()  # a crash came between the disk and the answer
        self.ready: set[str] = set()
        self.freed_at: dict[str, float] = {}  # in seconds of real time, which nobody can jump
        self.real_s = 0.0
        self.journal: CrashingJournal | None = None

    def now(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    @initialize(choice=st.sampled_from(Choice))
    def boot_up(self, choice: Choice) -> None:
        self.choice = choice
        self.open(self.folder / "0.db")

    def open(self, path: Path) -> None:
        self.journal = CrashingJournal(path)
        self.pool = LocalPool(
            self.journal, self, boot_id=str(self.boot), cooldown_s=COOLDOWN_S, choice=self.choice
        )  # fmt: skip

    @rule(owner=st.sampled_from(PODS))
    def lease(self, owner: Owner) -> None:
        try:
            lease = self.pool.lease(owner)
        except PoolEmpty:
            assert owner not in self.acknowledged
            return
        assert self.acknowledged.get(owner, lease.address) == lease.address, "the same owner, the same lease"
        if owner not in self.acknowledged and owner not in self.unsure:
            cooled_s = self.real_s - self.freed_at.get(lease.address, -1e9)
            assert cooled_s >= COOLDOWN_S, f"{lease.address} was leased {cooled_s} s after it was freed"
            assert lease.address not in self.ready, "a fenced address is never leased"
        self.unsure.discard(owner)
        self.acknowledged[owner] = lease.address

    @rule(owner=st.sampled_from(PODS))
    def free(self, owner: Owner) -> None:
        lease = self.pool.free(owner)
        if lease is not None:
            self.freed_at[lease.address] = self.real_s
        self.acknowledged.pop(owner, None)
        self.unsure.discard(owner)

    @rule(told=pools)
    def service_tells_the_pool(self, told: dict[str, tuple[str, AddressState]]) -> None:
        interfaces: dict[str, dict[str, AddressState]] = {"eni-1": {}, "eni-2": {}}
        for address, (interface, state) in told.items():
            interfaces[interface][address] = state
        self.pool.apply(
            {
                name: PoolInterface(
                    name, "02:00:00:00:00:01", index, "s", "10.0.0.0/24", "10.0.0.1", "10.0.0.2", "v", "z",
                    ("10.0.0.0/16",), (), addresses,
                )
                for index, (name, addresses) in enumerate(interfaces.items())
            }
        )  # fmt: skip
        self.look()

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.real_s += seconds
        self.wall_s += seconds
        self.monotonic_s += seconds
        self.pool.settle()
        self.look()

    @rule(seconds=st.floats(-1e6, 1e6))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.wall_s += seconds

    @rule(
        owner=st.sampled_from(PODS),
        what=st.sampled_from(["nothing", "lease", "free"]),
        die=st.sampled_from(["before", "after"]),
        reboot=st.booleans(),
    )
    def crash(self, owner: Owner, what: str, die: str, reboot: bool) -> None:
        """The machine dies, perhaps in the middle of a write; what is on the disk is all that is left."""
        assert self.journal is not None
        self.journal.die = die
        try:
            if what == "lease":
                self.pool.lease(owner)
            elif what == "free" and self.pool.free(owner) is not None:
                raise AssertionError("it was to die")
        except (DiskFull, StoreError):
            held = self.acknowledged.pop(owner, None)
            self.unsure.add(owner)
            if held is not None:
                self.freed_at[held] = self.real_s
        except PoolEmpty:
            pass
        self.lives += 1
        old, new = self.folder / f"{self.lives - 1}.db", self.folder / f"{self.lives}.db"
        for suffix in ("", "-wal"):
            if Path(f"{old}{suffix}").exists():
                shutil.copy(f"{old}{suffix}", f"{new}{suffix}")
        self.journal.close()
        if reboot:
            self.boot, self.monotonic_s = self.boot + 1, 5.0
        self.open(new)
        self.look()

    def look(self) -> None:
        self.ready = set(self.pool.usage().ready)

    @invariant()
    def every_acknowledged_lease_is_there(self) -> None:
        if self.journal is None:
            return
        held = {lease.owner: lease.address for lease in self.pool.leases()}
        for owner, address in self.acknowledged.items():
            assert held.get(owner) == address
        assert len(set(held.values())) == len(held), "an address has one owner"

    @invariant()
    def states_exclude_each_other(self) -> None:
        if self.journal is None:
            return
        usage = self.pool.usage()
        assert not usage.in_use & usage.cooling
        assert not usage.in_use & usage.ready
        assert not usage.cooling & usage.ready
        assert not usage.ready & usage.refused

    def teardown(self) -> None:
        if self.journal is not None:
            self.journal.close()
        shutil.rmtree(self.folder)


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
