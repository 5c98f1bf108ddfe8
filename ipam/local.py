"""The node's side of IPAM: leases addresses of the pool that the service pushed, and never one twice.

An address on the node is free, leased, cooling or fenced:

    free ──lease──▶ leased ──free──▶ cooling ──cooldown_s──▶ free
    free ──marked by the service──▶ fenced (ready) ──unmarked──▶ free, or ──vanishes from the pool──▶ gone

Every step is in the journal before it is answered, so a killed daemon knows all that it promised, and leases on from
its journal while every central service is down. Blocking and thread-safe: the CNI path runs it in its own threads.

Choice: `pack` takes the first interface by device index that has a free address, so that interfaces empty whole;
`spread` takes the interface with most free ones. Within an interface, the address freed longest ago goes first.
"""

from __future__ import annotations

import enum
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ipam.errors import AddressConflict, PoolEmpty
from ipam.journal import Journal, Lease, Owner
from ipam.model import NO_TAGS, AddressState, PoolInterface, Usage
from ipam.ports import Clock

_TO_RELEASE = frozenset({AddressState.MARKED, AddressState.READY, AddressState.RELEASING})


class Choice(enum.StrEnum):
    PACK = "pack"
    SPREAD = "spread"


@dataclass(frozen=True, slots=True)
class InterfaceCounts:
    """Addresses of one interface by their state on this node. `unusable`: why none of them is leased, or empty."""

    interface: PoolInterface
    available: int
    in_use: int
    cooling: int
    fenced: int
    unusable: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An address in use that should not be, with what to do."""

    address: str
    owner: Owner
    message: str
    remedy: str


class LocalPool:
    """The pool of one node.

    :param boot_id: names the boot that `clock.monotonic` counts from. Cooldowns are measured on that clock alone, so
        the wall clock may jump; after a reboot each starts anew: none is ever shorter, nor longer, than `cooldown_s`.
    :param pending_linger_s: how long an owner that was refused counts as pending, since it will try again.
    :param on_change: called from any thread, perhaps under the pool's lock, when the usage has changed: it may only
        schedule something.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        boot_id: str,
        cooldown_s: float = 30.0,
        choice: Choice = Choice.PACK,
        pending_linger_s: float = 30.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._boot_id = boot_id
        self._cooldown_s = cooldown_s
        self._choice = choice
        self._pending_linger_s = pending_linger_s
        self._on_change = on_change
        self._changed = threading.Condition()
        self._apply_lock = threading.Lock()
        self._interfaces: dict[str, PoolInterface] = {}  # by id, ordered by device index
        self._home: dict[str, str] = {}  # address -> interface id, for all of the pool
        self._free: dict[str, OrderedDict[str, None]] = {}  # interface id -> addresses, longest free first
        self._leases: dict[Owner, Lease] = {}
        self._owners: dict[str, Owner] = {}  # address -> owner
        self._writing: set[Owner] = set()  # leases that are on their way to the disk
        self._cooling: OrderedDict[str, float] = OrderedDict()  # address -> monotonic end, soonest first
        self._marked: frozenset[str] = frozenset()
        self._fences: dict[str, bool] = {}  # address -> durable
        self._unusable: Mapping[str, str] = {}
        self._waiting: dict[Owner, float] = {}  # owner -> monotonic end of its counting as pending
        self._waiting_pods: dict[Owner, str] = {}
        self._journalled: dict[str, PoolInterface] = {}
        self._sequence = journal.generation << 32
        self._restore()

    def _restore(self) -> None:
        contents = self._journal.load()
        for lease in contents.leases:
            self._leases[lease.owner] = lease
            self._owners[lease.address] = lease.owner
        now = self._clock.monotonic()
        ends = []
        for cooling in contents.cooling:
            elapsed_s = now - cooling.freed_monotonic_s if cooling.freed_boot_id == self._boot_id else 0.0
            ends.append((now + self._cooldown_s - min(max(elapsed_s, 0.0), self._cooldown_s), cooling.address))
        for end, address in sorted(ends):
            if end > now:
                self._cooling[address] = end
        self._journal.forget(address for end, address in ends if end <= now)
        self._fences = {address: True for address in contents.fences if address not in self._owners}
        self._journalled = {interface.id: interface for interface in contents.interfaces}
        self._merge(self._journalled)

    # -- leasing ------------------------------------------------------------------------------------------------------

    def lease(
        self, owner: Owner, *, pod: str = "", attributes: Mapping[str, str] = NO_TAGS, wait_s: float = 0.0
    ) -> Lease:
        """The address of `owner`: the one it has, or a free one, durably its own when this returns.

        Waits up to `wait_s` for one. Raises PoolEmpty, StoreError.
        """
        with self._changed:
            address = None
            while address is None:
                known = self._await(owner)
                if known is not None:
                    return known
                self._waiting_pods[owner] = pod
                address = self._pick_within(owner, wait_s)
            lease = Lease(owner, address, self._home[address], self._clock.now(), pod, dict(attributes))
            self._leases[owner] = lease
            self._owners[address] = owner
            self._writing.add(owner)
        try:
            self._journal.lease(lease)
        except BaseException:
            with self._written(owner):
                self._forget(lease)
                self._to_free(address)
            raise
        with self._written(owner):
            pass
        self._on_change()
        return lease

    def free(self, owner: Owner) -> Lease | None:
        """Ends the lease of `owner`; its address cools. None if there is none. Durable when this returns."""
        lease = self._take(owner)
        if lease is None:
            return None
        at = self._clock.monotonic()
        try:
            self._journal.free(lease, freed_monotonic_s=at, boot_id=self._boot_id)
        except BaseException:
            with self._written(owner):
                raise
        with self._written(owner):
            self._forget(lease)
            self._cooling[lease.address] = at + self._cooldown_s
            self._expire(at)
        self._on_change()
        return lease

    def cancel(self, owner: Owner) -> None:
        """Takes back a lease whose address no packet has carried: no cooldown."""
        lease = self._take(owner)
        if lease is None:
            return
        try:
            self._journal.cancel(lease)
        except BaseException:
            with self._written(owner):
                raise
        with self._written(owner):
            self._forget(lease)
            self._to_free(lease.address)
        self._on_change()

    def adopt(self, owner: Owner, address: str, *, pod: str = "", attributes: Mapping[str, str] = NO_TAGS) -> Lease:
        """Writes down a lease that exists in the kernel, though no journal tells of it.

        Raises AddressConflict if address or owner belong to another lease, StoreError."""
        with self._changed:
            while owner in self._writing:
                self._changed.wait()
            if owner in self._leases or address in self._owners:
                raise AddressConflict(f"{address} or {owner} belongs to another lease already", field="address")
            home = self._home.get(address, "")
            lease = Lease(owner, address, home, self._clock.now(), pod, dict(attributes))
            if home:
                self._free[home].pop(address, None)
            self._cooling.pop(address, None)
            self._fences.pop(address, None)
            self._leases[owner] = lease
            self._owners[address] = owner
            self._writing.add(owner)
        try:
            self._journal.lease(lease)
        except BaseException:
            with self._written(owner):
                self._forget(lease)
                self._to_free(address)
            raise
        with self._written(owner):
            pass
        self._on_change()
        return lease

    def amend(self, owner: Owner, attributes: Mapping[str, str]) -> Lease | None:
        """Writes new attributes of a lease down."""
        lease = self._take(owner)
        if lease is None:
            return None
        amended = replace(lease, attributes=dict(attributes))
        try:
            self._journal.lease(amended)
        except BaseException:
            with self._written(owner):
                raise
        with self._written(owner):
            self._leases[owner] = amended
        return amended

    def find(self, owner: Owner) -> Lease | None:
        with self._changed:
            return self._leases.get(owner)

    def leases(self) -> Sequence[Lease]:
        with self._changed:
            return list(self._leases.values())

    # -- the pool -----------------------------------------------------------------------------------------------------

    def apply(self, interfaces: Mapping[str, PoolInterface]) -> None:
        """Takes the whole pool as the service tells it. Raises StoreError; what is in memory then holds all the same,
        but no fence is reported ready before it is on the disk."""
        with self._apply_lock:
            with self._changed:
                interfaces = self.kept(interfaces)
                lifted = self._merge(interfaces)
                self._expire(self._clock.monotonic())
                upserts = [one for one in interfaces.values() if self._journalled.get(one.id) != one]
                deletes = [known for known in self._journalled if known not in interfaces]
                fenced = self._fence()
                self._changed.notify_all()
            self._journal.pool(upserts=upserts, deletes=deletes, fenced=fenced, lifted=lifted)
            self._journalled = dict(interfaces)
            self._ready(fenced)
        self._on_change()

    def kept(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, PoolInterface]:
        """`interfaces`, and those that vanished from them but carry pods still: these go on, and get no new ones."""
        with self._changed:
            carrying = {lease.interface_id for lease in self._leases.values()}
            vanished = [one for one in self._interfaces.values() if one.id in carrying and one.id not in interfaces]
            return {**interfaces, **{one.id: replace(one, addresses={}) for one in vanished}}

    def settle(self) -> float | None:
        """Ends cooldowns that are over and fences what may be fenced by now. Returns seconds to the next end, if any.
        Raises StoreError."""
        with self._apply_lock:
            with self._changed:
                now = self._clock.monotonic()
                before = len(self._cooling), len(self._waiting)
                self._expire(now)
                for owner in [one for one, end in self._waiting.items() if end <= now]:
                    del self._waiting[owner]
                self._waiting_pods = {one: pod for one, pod in self._waiting_pods.items() if one in self._waiting}
                fenced = self._fence()
                changed = bool(fenced) or before != (len(self._cooling), len(self._waiting))
                ends = [*self._waiting.values(), *self._cooling.values()]
                self._changed.notify_all()
            self._journal.pool(fenced=fenced)
            self._ready(fenced)
        if changed:
            self._on_change()
        return min((end - now for end in ends if end < math.inf), default=None)

    def set_unusable(self, reasons: Mapping[str, str]) -> None:
        """Names the interfaces (by id) whose addresses must not be leased, with why: they are not in the kernel."""
        with self._changed:
            self._unusable = dict(reasons)
            self._changed.notify_all()

    def interfaces(self) -> Mapping[str, PoolInterface]:
        with self._changed:
            return dict(self._interfaces)

    # -- reporting ----------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """All that this node uses, with a sequence number of its own."""
        with self._changed:
            self._sequence += 1
            ready = frozenset(address for address, durable in self._fences.items() if durable)
            return Usage(
                in_use=frozenset(self._owners),
                cooling=frozenset(address for address in self._cooling if address in self._home),
                ready=ready,
                refused=frozenset(address for address in self._marked if address not in self._fences),
                pending_pods=len(self._waiting),
                sequence=self._sequence,
            )

    def counts(self) -> Sequence[InterfaceCounts]:
        with self._changed:
            self._expire(self._clock.monotonic())
            rows = []
            for interface in self._interfaces.values():
                addresses = interface.addresses
                in_use = sum(lease.interface_id == interface.id for lease in self._leases.values())
                cooling = sum(address in self._cooling for address in addresses)
                fenced = sum(address in self._fences for address in addresses)
                free = len(self._free[interface.id])
                rows.append(
                    InterfaceCounts(interface, free, in_use, cooling, fenced, self._unusable.get(interface.id, ""))
                )
            return rows

    def pending(self) -> int:
        with self._changed:
            return len(self._waiting)

    def waiting(self) -> Mapping[Owner, str]:
        """Owners without an address, by their pods' names."""
        with self._changed:
            return {owner: self._waiting_pods.get(owner, "") for owner in self._waiting}

    def problems(self) -> Sequence[Problem]:
        """Addresses in use that the pool does not hold, or that the service is about to take away."""
        with self._changed:
            found = []
            for address, owner in self._owners.items():
                holder = self._leases[owner].pod or str(owner)
                interface = self._interfaces.get(self._home.get(address, ""))
                if interface is None and self._interfaces:
                    message = f"{address} is in use by {holder} but is no longer in the node's pool"
                elif interface is not None and interface.addresses[address] is AddressState.RELEASING:
                    message = f"{address} is in use by {holder} but the service is releasing it"
                else:
                    continue
                remedy = "find out who unassigned it at the cloud; restart the pod to give it an address of the pool"
                found.append(Problem(address, owner, message, remedy))
            return found

    # -- inside; the caller holds self._changed, but for _ready, _take and _written, which take it --------------------

    def _merge(self, interfaces: Mapping[str, PoolInterface]) -> list[str]:
        """Makes `interfaces` the pool. Returns fences that no longer hold."""
        self._interfaces = {
            interface.id: interface
            for interface in sorted(interfaces.values(), key=lambda one: (one.device_index, one.id))
        }
        home = {address: one.id for one in self._interfaces.values() for address in one.addresses}
        for address, interface_id in self._home.items():
            if home.get(address) != interface_id:
                self._free[interface_id].pop(address, None)
        self._home = home
        self._free = {name: self._free.get(name, OrderedDict()) for name in self._interfaces}
        for lease in list(self._leases.values()):
            if home.get(lease.address, lease.interface_id) != lease.interface_id:
                self._leases[lease.owner] = replace(lease, interface_id=home[lease.address])
        self._marked = frozenset(
            address
            for interface in self._interfaces.values()
            for address, state in interface.addresses.items()
            if state in _TO_RELEASE
        )
        lifted = [address for address in self._fences if address not in self._marked]
        for address in lifted:
            del self._fences[address]
        for interface in self._interfaces.values():
            free = self._free[interface.id]
            fresh = [address for address in interface.addresses if address not in free and self._idle(address)]
            for address in sorted(fresh, key=lambda text: (len(text), ip_address(text).packed)):
                free[address] = None
        return lifted

    def _idle(self, address: str) -> bool:
        return address not in self._owners and address not in self._cooling and address not in self._fences

    def _fence(self) -> list[str]:
        """Fences marked addresses that are free, unless pods wait: they may have them. Returns what must be written."""
        if not self._waiting:
            for address in self._marked:
                if self._idle(address):
                    self._free[self._home[address]].pop(address, None)
                    self._fences[address] = False
        return [address for address, durable in self._fences.items() if not durable]

    def _ready(self, fenced: Sequence[str]) -> None:
        with self._changed:
            for address in fenced:
                if address in self._fences:
                    self._fences[address] = True

    def _await(self, owner: Owner) -> Lease | None:
        """The lease that `owner` has already, once it is on the disk."""
        while owner in self._writing:
            self._changed.wait()
        return self._leases.get(owner)

    def _pick_within(self, owner: Owner, wait_s: float) -> str | None:
        """A free address, as soon as there is one; None if `owner` got one meanwhile through another call.
        Raises PoolEmpty after `wait_s`."""
        deadline = self._clock.monotonic() + wait_s
        while owner not in self._leases:
            now = self._clock.monotonic()
            self._expire(now)
            address = self._pick()
            if address is not None:
                self._waiting.pop(owner, None)
                return address
            if now >= deadline:
                self._waiting[owner] = now + self._pending_linger_s
                self._on_change()
                raise self._empty(wait_s)
            if self._waiting.get(owner) != math.inf:
                self._waiting[owner] = math.inf
                self._on_change()
            self._changed.wait(max(min(deadline, next(iter(self._cooling.values()), deadline)) - now, 0.001))
        return None

    def _pick(self) -> str | None:
        chosen: OrderedDict[str, None] | None = None
        for interface_id, free in self._free.items():
            if free and interface_id not in self._unusable:
                if self._choice is Choice.PACK:
                    chosen = free
                    break
                if chosen is None or len(free) > len(chosen):
                    chosen = free
        return None if chosen is None else chosen.popitem(last=False)[0]

    def _expire(self, now: float) -> None:
        while self._cooling and next(iter(self._cooling.values())) <= now:
            address, _ = self._cooling.popitem(last=False)
            self._to_free(address)

    def _to_free(self, address: str) -> None:
        if address in self._home and self._idle(address):
            self._free[self._home[address]][address] = None
            self._changed.notify_all()

    def _take(self, owner: Owner) -> Lease | None:
        """Claims the lease of `owner` for a write. (Takes the lock itself.)"""
        with self._changed:
            while owner in self._writing:
                self._changed.wait()
            self._waiting.pop(owner, None)
            lease = self._leases.get(owner)
            if lease is not None:
                self._writing.add(owner)
            return lease

    def _forget(self, lease: Lease) -> None:
        del self._leases[lease.owner]
        del self._owners[lease.address]

    @contextmanager
    def _written(self, owner: Owner) -> Iterator[None]:
        with self._changed:
            try:
                yield
            finally:
                self._writing.discard(owner)
                self._changed.notify_all()

    def _empty(self, waited_s: float) -> PoolEmpty:
        held = len(self._home)
        blocked = ", ".join(f"{name}: {why}" for name, why in self._unusable.items() if self._free.get(name))
        text = (
            f"no free address in the node's pool ({held} held, {len(self._owners)} in use, {len(self._cooling)} cooling"
        )
        return PoolEmpty(
            f"{text}, {len(self._fences)} being released) after {waited_s:g} s" + (f"; {blocked}" if blocked else ""),
            remedy="try again later; `plimsoll ipam explain NODE` tells why the pool does not grow",
            retry_after_s=5.0,
        )


__all__ = ["Choice", "InterfaceCounts", "Lease", "LocalPool", "Owner", "Problem"]
