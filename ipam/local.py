"""The node's side of IPAM: leases addresses of the pool that the service pushed, and never one twice.

An address on the node is free, leased, cooling or fenced (holdings.py keeps the books):

    free ──lease──▶ leased ──free──▶ cooling ──cooldown_s──▶ free
    free ──marked by the service──▶ fenced (ready) ──unmarked──▶ free, or ──vanishes from the pool──▶ gone

Every step is in the journal before it is answered, so a killed daemon knows all that it promised, and leases on from
its journal while every central service is down. Blocking and thread-safe: the CNI path runs it in its own threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ipam.errors import AddressConflict, PoolEmpty
from ipam.holdings import Choice, Holdings, InterfaceCounts, Problem
from ipam.journal import ADDRESS6, Journal, Lease, Owner
from ipam.model import NO_TAGS, PoolInterface, Usage
from ipam.ports import Clock


class LocalPool:
    """All pools of one node: the default one, and named ones. An interface says whose its addresses are.

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
        self._pending_linger_s = pending_linger_s
        self._on_change = on_change
        self._changed = threading.Condition()  # guards all below
        self._apply_lock = threading.Lock()  # one change of the pool at a time, its write included
        self._held = Holdings(choice)
        self._writing: set[Owner] = set()  # leases that are on their way to the disk
        self._waiting: dict[Owner, float] = {}  # owner -> monotonic end of its counting as pending
        self._waiting_pods: dict[Owner, str] = {}
        self._waiting_for: dict[Owner, str] = {}  # owner -> pool
        self._patient = True
        self._journalled: Mapping[str, PoolInterface] = {}
        self._sequence = journal.generation << 32
        self._restore()

    def _restore(self) -> None:
        contents, held = self._journal.load(), self._held
        for lease in contents.leases:
            held.enter(lease)
        now = self._clock.monotonic()
        ends = []
        for cooling in contents.cooling:
            elapsed_s = now - cooling.freed_monotonic_s if cooling.freed_boot_id == self._boot_id else 0.0
            end = now + self._cooldown_s - min(max(elapsed_s, 0.0), self._cooldown_s)
            ends.append((end, cooling.address, cooling.attributes.get(ADDRESS6, "")))
        # What was fenced had cooled before; a reboot must not take the promise back.
        held.fences = {address: True for address in contents.fences if address not in held.owners}
        for end, address, address6 in sorted(ends):
            if end > now and address not in held.fences:
                held.cool(address, end, address6)
        self._journal.forget(address for _, address, _ in ends if address not in held.cooling)
        self._journalled = {interface.id: interface for interface in contents.interfaces}
        held.merge(self._journalled)

    # -- leasing ------------------------------------------------------------------------------------------------------

    def lease(
        self,
        owner: Owner,
        *,
        pod: str = "",
        attributes: Mapping[str, str] = NO_TAGS,
        attributes_of: Callable[[str], Mapping[str, str]] = lambda _: NO_TAGS,
        wait_s: float = 0.0,
        pool: str = "",
    ) -> Lease:
        """The address of `owner`: the one it has, or a free one, durably its own when this returns.

        Waits up to `wait_s` for one of `pool`; empty: the default one. `attributes_of`: further attributes, which
        follow from the address; it must not block. Raises PoolEmpty, StoreError.
        """
        with self._changed:
            address = None
            while address is None:
                known = self._settled(owner)
                if known is not None:
                    return known
                self._waiting_pods[owner] = pod
                self._waiting_for[owner] = pool
                address = self._pick_within(owner, wait_s, pool)
            known_of = {**attributes, **attributes_of(address)}
            lease = Lease(owner, address, self._held.home(address), self._clock.now(), pod, known_of)
            self._held.enter(lease)
            self._writing.add(owner)
        self._write(owner, lambda: self._journal.lease(lease), undo=lambda: self._held.leave(lease))
        return lease

    def adopt(self, owner: Owner, address: str, *, pod: str = "", attributes: Mapping[str, str] = NO_TAGS) -> Lease:
        """Writes down a lease that exists in the kernel, though no journal tells of it.

        Raises AddressConflict if address or owner belong to another lease, StoreError."""
        with self._changed:
            if self._settled(owner) is not None or address in self._held.owners:
                raise AddressConflict(f"{address} or {owner} belongs to another lease already", field="address")
            lease = Lease(owner, address, self._held.home(address), self._clock.now(), pod, dict(attributes))
            self._held.enter(lease)
            self._writing.add(owner)
        self._write(owner, lambda: self._journal.lease(lease), undo=lambda: self._held.leave(lease))
        return lease

    def free(self, owner: Owner) -> Lease | None:
        """Ends the lease of `owner`; its address cools. None if there is none. Durable when this returns."""
        lease = self._take(owner)
        if lease is None:
            return None
        at = self._clock.monotonic()

        def finish() -> None:
            self._held.leave(lease, cool_until=at + self._cooldown_s)
            self._held.expire(at)

        write = lambda: self._journal.free(lease, freed_monotonic_s=at, boot_id=self._boot_id)  # noqa: E731
        self._write(owner, write, finish=finish)
        return lease

    def cancel(self, owner: Owner) -> None:
        """Takes back a lease whose address no packet has carried: no cooldown."""
        lease = self._take(owner)
        if lease is not None:
            self._write(owner, lambda: self._journal.cancel(lease), finish=lambda: self._held.leave(lease))

    def amend(self, owner: Owner, attributes: Mapping[str, str]) -> Lease | None:
        """Writes new attributes of a lease down."""
        lease = self._take(owner)
        if lease is None:
            return None
        amended = replace(lease, attributes=dict(attributes))
        self._write(owner, lambda: self._journal.lease(amended), finish=lambda: self._held.enter(amended))
        return amended

    def address6_of(self, address: str) -> str:
        """The IPv6 address that goes with a pool's address at its lease; empty: none. For `attributes_of`."""
        with self._changed:
            return self._held.address6(address)

    def find(self, owner: Owner) -> Lease | None:
        with self._changed:
            return self._held.leases.get(owner)

    def leases(self) -> Sequence[Lease]:
        with self._changed:
            return list(self._held.leases.values())

    # -- the pool -----------------------------------------------------------------------------------------------------

    def apply(self, interfaces: Mapping[str, PoolInterface]) -> None:
        """Takes the whole pool as the service tells it. Raises StoreError; what is in memory then holds all the same,
        but no fence is reported ready before it is on the disk."""
        with self._apply_lock:
            with self._changed:
                interfaces = self._held.kept(interfaces)
                lifted = self._held.merge(interfaces)
                self._held.expire(self._clock.monotonic())
                fenced = self._fence()
                self._changed.notify_all()
            upserts = [one for one in interfaces.values() if self._journalled.get(one.id) != one]
            deletes = [known for known in self._journalled if known not in interfaces]
            self._journal.pool(upserts=upserts, deletes=deletes, fenced=fenced, lifted=lifted)
            self._journalled = dict(interfaces)
            self._ready(fenced)
        self._on_change()

    def kept(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, PoolInterface]:
        """`interfaces`, and those that vanished from them but carry pods still: what `apply` will make of them."""
        with self._changed:
            return self._held.kept(interfaces)

    def settle(self) -> float | None:
        """Ends cooldowns that are over and fences what may be fenced by now. Returns seconds to the next end, if any.
        Raises StoreError."""
        with self._apply_lock:
            with self._changed:
                now = self._clock.monotonic()
                changed = self._held.expire(now)
                for owner in [one for one, end in self._waiting.items() if end <= now]:
                    del self._waiting[owner]
                    changed = True
                self._waiting_pods = {one: pod for one, pod in self._waiting_pods.items() if one in self._waiting}
                self._waiting_for = {one: pool for one, pool in self._waiting_for.items() if one in self._waiting}
                fenced = self._fence()
                ends = [*self._waiting.values(), *self._held.cooling.values()]
                self._changed.notify_all()
            self._journal.pool(fenced=fenced)
            self._ready(fenced)
        if changed or fenced:
            self._on_change()
        return min((end - now for end in ends if end < math.inf), default=None)

    def refuse_waiting(self) -> None:
        """From now on nobody waits for an address; who does is refused at once. For the end of a daemon."""
        with self._changed:
            self._patient = False
            self._changed.notify_all()

    def set_unusable(self, reasons: Mapping[str, str]) -> None:
        """Names the interfaces (by id) whose addresses must not be leased, with why: they are not in the kernel."""
        with self._changed:
            self._held.unusable = dict(reasons)
            self._changed.notify_all()

    def interfaces(self) -> Mapping[str, PoolInterface]:
        with self._changed:
            return dict(self._held.interfaces)

    # -- reporting ----------------------------------------------------------------------------------------------------

    def usage(self, pool: str | None = None) -> Usage:
        """All that this node uses, or what is used of one of its pools, with a sequence number of its own."""
        with self._changed:
            self._sequence += 1
            held = self._held

            def of(addresses: Iterable[str]) -> frozenset[str]:
                return frozenset(each for each in addresses if pool is None or held.pool_of(each) == pool)

            # What a pod has, or had just now, of no pool that is known is told to all: it must not be thought free.
            return Usage(
                in_use=of(held.owners) | frozenset(each for each in held.owners if each not in held),
                cooling=of(held.cooling) | frozenset(each for each in held.cooling if each not in held),
                ready=of(address for address, durable in held.fences.items() if durable),
                refused=of(address for address in held.marked if address not in held.fences),
                pending_pods=sum(pool in (None, self._waiting_for.get(each, "")) for each in self._waiting),
                sequence=self._sequence,
            )

    def counts(self) -> Sequence[InterfaceCounts]:
        with self._changed:
            self._held.expire(self._clock.monotonic())
            return self._held.counts()

    def pending(self) -> int:
        with self._changed:
            return len(self._waiting)

    def waiting(self) -> Mapping[Owner, str]:
        """Owners without an address, by their pods' names."""
        with self._changed:
            return {owner: self._waiting_pods.get(owner, "") for owner in self._waiting}

    def problems(self) -> Sequence[Problem]:
        with self._changed:
            return self._held.problems()

    # -- inside; the caller holds self._changed, but for _ready, _take and _write, which take it -----------------------

    def _settled(self, owner: Owner) -> Lease | None:
        """The lease that `owner` has already, once nothing of it is on its way to the disk."""
        while owner in self._writing:
            self._changed.wait()
        return self._held.leases.get(owner)

    def _pick_within(self, owner: Owner, wait_s: float, pool: str) -> str | None:
        """A free address of the pool, as soon as there is one; None if `owner` got one meanwhile through another call.
        Raises PoolEmpty after `wait_s`."""
        deadline = self._clock.monotonic() + wait_s
        while owner not in self._held.leases:
            now = self._clock.monotonic()
            self._held.expire(now)
            address = self._held.pick(pool)
            if address is not None:
                self._waiting.pop(owner, None)
                return address
            if now >= deadline or not self._patient:
                self._waiting[owner] = now + self._pending_linger_s
                self._on_change()
                raise self._empty(wait_s)
            if self._waiting.get(owner) != math.inf:
                self._waiting[owner] = math.inf
                self._on_change()
            cooled = next(iter(self._held.cooling.values()), deadline)
            self._changed.wait(max(min(deadline, cooled) - now, 0.001))
        return None

    def _fence(self) -> list[str]:
        """Fences what may go, unless pods wait for that pool: they may have it. Returns the fences that must be
        written."""
        self._held.fence_marked({self._waiting_for.get(each, "") for each in self._waiting})
        return self._held.unwritten_fences()

    def _ready(self, fenced: Sequence[str]) -> None:
        with self._changed:
            for address in fenced:
                if address in self._held.fences:
                    self._held.fences[address] = True

    def _take(self, owner: Owner) -> Lease | None:
        """Claims the lease of `owner` for a write."""
        with self._changed:
            lease = self._settled(owner)
            self._waiting.pop(owner, None)
            if lease is not None:
                self._writing.add(owner)
            return lease

    def _write(
        self,
        owner: Owner,
        write: Callable[[], None],
        *,
        finish: Callable[[], None] = lambda: None,
        undo: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes a change of a lease that is claimed, without the lock, so that others share the commit."""
        after = undo
        try:
            write()
            after = finish
        finally:
            with self._changed:
                after()
                self._writing.discard(owner)
                self._changed.notify_all()
        self._on_change()

    def _empty(self, waited_s: float) -> PoolEmpty:
        held = self._held
        counts = f"{len(held)} held, {len(held.owners)} in use, {len(held.cooling)} cooling"
        blocked = held.blocked()
        return PoolEmpty(
            f"no free address in the node's pool ({counts}, {len(held.fences)} being released) after {waited_s:g} s"
            + (f"; {blocked}" if blocked else ""),
            remedy="try again later; `plimsoll ipam explain NODE` tells why the pool does not grow"
            if any(one.mac for one in held.interfaces.values()) or not held.interfaces
            else "try again later, lower cooldown_s, or give the node a larger range (pod_cidrs)",
            retry_after_s=5.0,
        )


__all__ = ["Choice", "InterfaceCounts", "Lease", "LocalPool", "Owner", "Problem"]
