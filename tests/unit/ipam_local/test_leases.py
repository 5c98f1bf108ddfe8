"""Leases of one node: who gets which address, when it comes back, and what a restart remembers."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ipam.errors import AddressConflict, PoolEmpty, StoreError
from ipam.journal import Journal, Lease, Owner
from ipam.local import Choice, LocalPool
from ipam.model import AddressState, PoolInterface
from ipam.ports import Clock


class HandClock:
    """Wall and monotonic time apart, so that one can jump without the other."""

    def __init__(self) -> None:
        self.wall_s = 1_700_000_000.0
        self.monotonic_s = 1000.0

    def now(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def advance(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


def interface(name: str, addresses: dict[str, AddressState] | list[str], *, index: int = 0) -> PoolInterface:
    states = addresses if isinstance(addresses, dict) else dict.fromkeys(addresses, AddressState.AVAILABLE)
    return PoolInterface(
        id=name, mac=f"02:00:00:00:00:{index:02x}", device_index=index, subnet_id="subnet-1", subnet_cidr="10.0.0.0/24",
        gateway="10.0.0.1", primary_address=f"10.0.0.{200 + index}", vpc_id="vpc-1", zone="a",
        vpc_cidrs=("10.0.0.0/16",), security_group_ids=("sg-1",), addresses=states,
    )  # fmt: skip


def pool_of(*interfaces: PoolInterface) -> dict[str, PoolInterface]:
    return {one.id: one for one in interfaces}


def pod(name: str) -> Owner:
    return Owner(name, "eth0")


@pytest.fixture
def hand_clock() -> HandClock:
    return HandClock()


class Daemon:
    """Opens the pool on its journal, and again after a crash or a reboot."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock, self.boot_id = path, clock, "boot-1"
        self.choice, self.cooldown_s = Choice.PACK, 30.0
        self.changes = 0
        self.journal: Journal | None = None

    def _changed(self) -> None:
        self.changes += 1

    def start(self) -> LocalPool:
        if self.journal is not None:
            self.journal.close()
        self.journal = Journal(self.path)
        return LocalPool(
            self.journal, self.clock, boot_id=self.boot_id, cooldown_s=self.cooldown_s, choice=self.choice,
            on_change=self._changed,
        )  # fmt: skip


@pytest.fixture
def node_daemon(tmp_path: Path, hand_clock: HandClock) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "node.db", hand_clock)
    yield daemon
    if daemon.journal is not None:
        daemon.journal.close()


A, B, C = "10.0.0.10", "10.0.0.11", "10.0.0.12"


def test_a_pod_gets_an_address_once(node_daemon: Daemon) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A, B])))
    first = pool.lease(pod("web"), pod="default/web", attributes={"netns": "/n"})
    assert (first.address, first.interface_id) == (A, "eni-1")
    assert pool.lease(pod("web")) == first, "a repeated ADD gets the same lease"
    assert pool.lease(pod("db")).address == B
    with pytest.raises(PoolEmpty) as refused:
        pool.lease(pod("late"))
    assert refused.value.retry_after_s
    assert pool.usage().pending_pods == 1
    assert pool.usage().in_use == {A, B}


def test_a_freed_address_cools_before_the_next_pod_gets_it(node_daemon: Daemon, hand_clock: HandClock) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A])))
    pool.lease(pod("web"))
    assert pool.free(pod("web")) is not None
    assert pool.free(pod("web")) is None, "a repeated DEL finds nothing, and is fine"
    hand_clock.advance(29.9)
    with pytest.raises(PoolEmpty):
        pool.lease(pod("next"))
    assert pool.usage().cooling == {A}
    hand_clock.advance(0.2)
    assert pool.lease(pod("next")).address == A
    assert pool.usage().pending_pods == 0


@pytest.mark.parametrize(
    ("story", "wall_jump_s", "elapsed_s", "rebooted", "free_after_s"),
    [
        ("restart at once", 0, 0, False, 30),
        ("restart after ten seconds", 0, 10, False, 20),
        ("the wall clock jumped a year ahead", 31_536_000, 10, False, 20),
        ("the wall clock jumped a year back", -31_536_000, 10, False, 20),
        ("the cooldown passed while the daemon was down", 0, 31, False, 0),
        ("the machine was rebooted: anew, monotonic time means nothing", 0, 5, True, 30),
        ("rebooted, and the clock jumped ahead", 31_536_000, 5, True, 30),
    ],
)
def test_a_cooldown_survives_a_restart(
    node_daemon: Daemon,
    hand_clock: HandClock,
    story: str,
    wall_jump_s: float,
    elapsed_s: float,
    rebooted: bool,
    free_after_s: float,
) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A])))
    pool.lease(pod("web"))
    pool.free(pod("web"))
    hand_clock.monotonic_s += elapsed_s
    hand_clock.wall_s += wall_jump_s
    if rebooted:
        node_daemon.boot_id, hand_clock.monotonic_s = "boot-2", 3.0
    pool = node_daemon.start()
    if free_after_s:
        hand_clock.advance(free_after_s - 0.1)
        with pytest.raises(PoolEmpty):
            pool.lease(pod("early"))
        hand_clock.advance(0.2)
    assert pool.lease(pod("next")).address == A


def test_oldest_freed_goes_first(node_daemon: Daemon, hand_clock: HandClock) -> None:
    node_daemon.cooldown_s = 1.0
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A, B, C])))
    for name in ("a", "b", "c"):
        pool.lease(pod(name))
    for name in ("b", "c", "a"):
        pool.free(pod(name))
        hand_clock.advance(0.1)
    hand_clock.advance(2)
    assert [pool.lease(pod(name)).address for name in ("x", "y", "z")] == [B, C, A]


def test_pack_fills_an_interface_before_the_next(node_daemon: Daemon) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-2", [C], index=1), interface("eni-1", [A, B], index=0)))
    assert [pool.lease(pod(name)).address for name in "xyz"] == [A, B, C]


def test_spread_takes_the_emptiest_interface(node_daemon: Daemon) -> None:
    node_daemon.choice = Choice.SPREAD
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A], index=0), interface("eni-2", [B, C], index=1)))
    assert [pool.lease(pod(name)).interface_id for name in "xyz"] == ["eni-2", "eni-1", "eni-2"]


def test_an_interface_that_is_not_in_the_kernel_leases_nothing(node_daemon: Daemon) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A], index=0), interface("eni-2", [B], index=1)))
    pool.set_unusable({"eni-1": "no device with its MAC"})
    assert pool.lease(pod("x")).address == B
    with pytest.raises(PoolEmpty, match="no device with its MAC"):
        pool.lease(pod("y"))
    pool.set_unusable({})
    assert pool.lease(pod("y")).address == A


def test_everything_is_known_after_a_restart_without_any_service(node_daemon: Daemon) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A, B])))
    lease = pool.lease(pod("web"), pod="default/web", attributes={"netns": "/run/netns/web"})
    before = pool.usage().sequence
    pool = node_daemon.start()
    assert pool.leases() == [lease]
    assert pool.lease(pod("web")) == lease
    assert pool.lease(pod("new")).address == B, "what the pool held is leased on"
    assert pool.usage().sequence > before


def test_an_address_that_vanishes_in_use_is_kept_and_reported(node_daemon: Daemon, hand_clock: HandClock) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A, B])))
    pool.lease(pod("web"), pod="default/web")
    pool.apply(pool_of(interface("eni-1", [B])))
    assert pool.usage().in_use == {A}
    [problem] = pool.problems()
    assert problem.address == A
    assert "default/web" in problem.message
    pool.free(pod("web"))
    assert not pool.problems()
    assert pool.usage().cooling == {A}, "whoever gives its interface up must know that it rests"
    hand_clock.advance(31)
    pool.settle()
    assert pool.usage().cooling == frozenset(), "and then it is nobody's business any more"


def test_a_waiting_pod_is_served_when_the_pool_grows(node_daemon: Daemon) -> None:
    class RealClock:
        now, monotonic = staticmethod(time.time), staticmethod(time.monotonic)

    node_daemon.clock = RealClock()
    waiting = threading.Event()
    pool: LocalPool = node_daemon.start()
    pool._on_change = lambda: waiting.set() if pool._waiting else None
    with ThreadPoolExecutor(1) as threads:
        lease = threads.submit(pool.lease, pod("web"), wait_s=10)
        assert waiting.wait(5)
        assert pool.usage().pending_pods == 1, "a pod that waits is reported"
        pool.apply(pool_of(interface("eni-1", [A])))
        assert lease.result(5).address == A
    assert pool.usage().pending_pods == 0


def test_concurrent_pods_get_addresses_of_their_own(node_daemon: Daemon) -> None:
    addresses = [f"10.0.1.{n}" for n in range(64)]
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", addresses)))
    with ThreadPoolExecutor(16) as threads:
        leases = list(threads.map(lambda n: pool.lease(pod(f"pod-{n // 2}")), range(128)))
    assert len({lease.address for lease in leases}) == 64
    assert {lease.address for lease in node_daemon.start().leases()} == set(addresses)


def test_a_lease_that_the_disk_refuses_is_no_lease(node_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A])))

    def refuse(lease: Lease) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(node_daemon.journal, "lease", refuse)
    with pytest.raises(StoreError):
        pool.lease(pod("web"))
    monkeypatch.undo()
    assert pool.usage().in_use == frozenset()
    assert pool.lease(pod("db")).address == A


def test_a_cancelled_lease_needs_no_cooldown(node_daemon: Daemon) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A])))
    pool.lease(pod("broken"))
    pool.cancel(pod("broken"))
    assert pool.lease(pod("web")).address == A


def test_the_journal_itself_refuses_a_second_owner(node_daemon: Daemon) -> None:
    pool = node_daemon.start()
    pool.apply(pool_of(interface("eni-1", [A, B])))
    pool.lease(pod("web"))
    assert node_daemon.journal is not None
    with pytest.raises(AddressConflict):
        node_daemon.journal.lease(Lease(pod("thief"), A, "eni-1", 0.0))
    with pytest.raises(AddressConflict):
        node_daemon.journal.lease(Lease(pod("web"), B, "eni-1", 0.0))


def test_a_second_daemon_cannot_open_the_journal(node_daemon: Daemon, tmp_path: Path) -> None:
    node_daemon.start()
    program = f"from pathlib import Path; from ipam.journal import Journal; Journal(Path({str(node_daemon.path)!r}))"
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert second.returncode != 0
    assert "stop the other node daemon" in second.stderr or "locked" in second.stderr


def test_a_journal_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    journal = Journal(path)
    journal._connection.pragma("user_version", 99)
    journal.close()
    with pytest.raises(StoreError, match="version 99"):
        Journal(path)


class TestRelease:
    """The node's half of the handshake."""

    def test_a_free_address_is_fenced_and_never_leased(self, node_daemon: Daemon) -> None:
        pool = node_daemon.start()
        pool.apply(pool_of(interface("eni-1", {A: AddressState.MARKED, B: AddressState.AVAILABLE})))
        assert pool.usage().ready == {A}
        assert pool.lease(pod("web")).address == B
        with pytest.raises(PoolEmpty):
            pool.lease(pod("db"))
        pool = node_daemon.start()
        assert pool.usage().ready == {A}, "the fence was on the disk before it was told"
        with pytest.raises(PoolEmpty):
            pool.lease(pod("db"))

    def test_an_address_in_use_or_cooling_is_refused(self, node_daemon: Daemon, hand_clock: HandClock) -> None:
        pool = node_daemon.start()
        pool.apply(pool_of(interface("eni-1", [A, B])))
        pool.lease(pod("web"))
        pool.lease(pod("db"))
        pool.free(pod("db"))
        marked = pool_of(interface("eni-1", {A: AddressState.MARKED, B: AddressState.MARKED}))
        pool.apply(marked)
        usage = pool.usage()
        assert (usage.ready, usage.refused) == (frozenset(), frozenset({A, B}))
        hand_clock.advance(31)
        pool.settle()
        assert pool.usage().ready == {B}, "once it has cooled, it may go"
        assert pool.usage().refused == {A}

    def test_a_promise_survives_a_reboot(self, node_daemon: Daemon, hand_clock: HandClock) -> None:
        pool = node_daemon.start()
        pool.apply(pool_of(interface("eni-1", [A])))
        pool.lease(pod("web"))
        pool.free(pod("web"))
        hand_clock.advance(31)
        pool.apply(pool_of(interface("eni-1", {A: AddressState.MARKED})))
        assert pool.usage().ready == {A}
        node_daemon.boot_id, hand_clock.monotonic_s = "boot-2", 3.0
        usage = node_daemon.start().usage()
        assert (usage.ready, usage.cooling) == (frozenset({A}), frozenset()), (
            "the service may have released it meanwhile"
        )

    def test_unmarked_lifts_the_fence(self, node_daemon: Daemon) -> None:
        pool = node_daemon.start()
        pool.apply(pool_of(interface("eni-1", {A: AddressState.MARKED})))
        pool.apply(pool_of(interface("eni-1", {A: AddressState.AVAILABLE})))
        assert pool.usage().ready == frozenset()
        assert pool.lease(pod("web")).address == A
        assert node_daemon.start().usage().in_use == {A}

    def test_a_released_address_is_forgotten(self, node_daemon: Daemon) -> None:
        pool = node_daemon.start()
        pool.apply(pool_of(interface("eni-1", {A: AddressState.MARKED, B: AddressState.AVAILABLE})))
        pool.apply(pool_of(interface("eni-1", [B])))
        assert pool.usage().ready == frozenset()
        pool.apply(pool_of(interface("eni-1", [A, B])))
        assert pool.lease(pod("x")).address in (A, B)
        assert pool.lease(pod("y")).address in (A, B)

    def test_pods_that_wait_keep_a_marked_address(self, node_daemon: Daemon, hand_clock: HandClock) -> None:
        pool = node_daemon.start()
        with pytest.raises(PoolEmpty):
            pool.lease(pod("web"))
        pool.apply(pool_of(interface("eni-1", {A: AddressState.MARKED})))
        assert pool.usage().refused == {A}
        assert pool.lease(pod("web")).address == A

    def test_an_unwritten_fence_is_not_told(self, node_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = node_daemon.start()
        pool.apply(pool_of(interface("eni-1", [A])))

        def refuse(**changes: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(node_daemon.journal, "pool", refuse)
        marked = pool_of(interface("eni-1", {A: AddressState.MARKED}))
        with pytest.raises(StoreError):
            pool.apply(marked)
        assert pool.usage().ready == frozenset()
        with pytest.raises(PoolEmpty):
            pool.lease(pod("web"))
        monkeypatch.undo()
        pool.settle()
        assert pool.usage().ready == {A}
