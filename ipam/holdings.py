"""Which address of the node is free, leased, cooling or fenced: bookkeeping in memory, without locks, clock or I/O.

Choice: `pack` takes the first interface by device index that has a free address, so that interfaces empty whole;
`spread` takes the interface with most free ones. Within an interface, the address freed longest ago goes first.
Picking costs one step for each interface, however many addresses there are.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ipam.journal import Lease, Owner
from ipam.model import AddressState, PoolInterface

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


class Holdings:
    """All addresses that a node holds.

    :ivar interfaces: by id, ordered by device index.
    :ivar leases: by owner, also those on their way to the disk.
    :ivar owners: by address.
    :ivar cooling: monotonic end of the cooldown by address, soonest first.
    :ivar marked: addresses that the service wants back.
    :ivar fences: addresses that nobody gets any more; True once that is on the disk.
    :ivar unusable: why no address of an interface is leased, by its id.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self.interfaces: dict[str, PoolInterface] = {}
        self.leases: dict[Owner, Lease] = {}
        self.owners: dict[str, Owner] = {}
        self.cooling: OrderedDict[str, float] = OrderedDict()
        self.marked: frozenset[str] = frozenset()
        self.fences: dict[str, bool] = {}
        self.unusable: Mapping[str, str] = {}
        self._home: dict[str, str] = {}  # address -> interface id, for all of the pool
        self._free: dict[str, OrderedDict[str, None]] = {}  # interface id -> addresses, longest free first

    def __contains__(self, address: str) -> bool:
        return address in self._home

    def __len__(self) -> int:
        return len(self._home)

    def home(self, address: str) -> str:
        """Id of the interface that carries `address`, empty if it is not in the pool."""
        return self._home.get(address, "")

    def merge(self, interfaces: Mapping[str, PoolInterface]) -> list[str]:
        """Makes `interfaces` the pool. Returns fences that no longer hold."""
        ordered = sorted(interfaces.values(), key=lambda one: (one.device_index, one.id))
        self.interfaces = {interface.id: interface for interface in ordered}
        home = {address: one.id for one in ordered for address in one.addresses}
        for address, interface_id in self._home.items():
            if home.get(address) != interface_id:
                self._free[interface_id].pop(address, None)
        self._home = home
        self._free = {name: self._free.get(name, OrderedDict()) for name in self.interfaces}
        for lease in list(self.leases.values()):
            if home.get(lease.address, lease.interface_id) != lease.interface_id:
                self.leases[lease.owner] = replace(lease, interface_id=home[lease.address])
        self.marked = frozenset(
            address for one in ordered for address, state in one.addresses.items() if state in _TO_RELEASE
        )
        lifted = [address for address in self.fences if address not in self.marked]
        for address in lifted:
            del self.fences[address]
        for interface in ordered:
            free = self._free[interface.id]
            fresh = [address for address in interface.addresses if address not in free and self._idle(address)]
            for address in sorted(fresh, key=lambda text: (len(text), ip_address(text).packed)):
                free[address] = None
        return lifted

    def kept(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, PoolInterface]:
        """`interfaces`, and those that vanished from them but carry pods still: these go on, and get no new ones."""
        carrying = {lease.interface_id for lease in self.leases.values()}
        vanished = [one for one in self.interfaces.values() if one.id in carrying and one.id not in interfaces]
        return {**interfaces, **{one.id: replace(one, addresses={}) for one in vanished}}

    def pick(self) -> str | None:
        """Takes a free address out, None if there is none."""
        chosen: OrderedDict[str, None] | None = None
        for interface_id, free in self._free.items():
            if free and interface_id not in self.unusable:
                if self._choice is Choice.PACK:
                    chosen = free
                    break
                if chosen is None or len(free) > len(chosen):
                    chosen = free
        return None if chosen is None else chosen.popitem(last=False)[0]

    def enter(self, lease: Lease) -> None:
        """The address is leased, whatever it was before."""
        self._not_free(lease.address)
        self.cooling.pop(lease.address, None)
        self.fences.pop(lease.address, None)
        self.leases[lease.owner] = lease
        self.owners[lease.address] = lease.owner

    def leave(self, lease: Lease, *, cool_until: float | None = None) -> None:
        """The lease is over; its address cools, or is free at once."""
        del self.leases[lease.owner]
        del self.owners[lease.address]
        if cool_until is None:
            self._to_free(lease.address)
        else:
            self.cooling[lease.address] = cool_until

    def expire(self, now: float) -> bool:
        """Ends cooldowns that are over. True if there were any."""
        before = len(self.cooling)
        while self.cooling and next(iter(self.cooling.values())) <= now:
            address, _ = self.cooling.popitem(last=False)
            self._to_free(address)
        return len(self.cooling) != before

    def fence_marked(self) -> None:
        """Fences the marked addresses that are free."""
        for address in self.marked:
            if self._idle(address):
                self._not_free(address)
                self.fences[address] = False

    def unwritten_fences(self) -> list[str]:
        return [address for address, durable in self.fences.items() if not durable]

    def counts(self) -> Sequence[InterfaceCounts]:
        rows = []
        for interface in self.interfaces.values():
            addresses = interface.addresses
            rows.append(
                InterfaceCounts(
                    interface,
                    available=len(self._free[interface.id]),
                    in_use=sum(lease.interface_id == interface.id for lease in self.leases.values()),
                    cooling=sum(address in self.cooling for address in addresses),
                    fenced=sum(address in self.fences for address in addresses),
                    unusable=self.unusable.get(interface.id, ""),
                )
            )
        return rows

    def problems(self) -> Sequence[Problem]:
        """Addresses in use that the pool does not hold, or that the service takes away."""
        found = []
        for address, owner in self.owners.items():
            holder = self.leases[owner].pod or str(owner)
            interface = self.interfaces.get(self.home(address))
            if interface is None and self.interfaces:
                message = f"{address} is in use by {holder} but is no longer in the node's pool"
            elif interface is not None and interface.addresses[address] is AddressState.RELEASING:
                message = f"{address} is in use by {holder} but the service is releasing it"
            else:
                continue
            remedy = "find out who unassigned it at the cloud; restart the pod to give it an address of the pool"
            found.append(Problem(address, owner, message, remedy))
        return found

    def blocked(self) -> str:
        """Which interfaces have free addresses that are not leased, and why."""
        return ", ".join(f"{name}: {why}" for name, why in self.unusable.items() if self._free.get(name))

    def _idle(self, address: str) -> bool:
        return address not in self.owners and address not in self.cooling and address not in self.fences

    def _not_free(self, address: str) -> None:
        if address in self._home:
            self._free[self._home[address]].pop(address, None)

    def _to_free(self, address: str) -> None:
        if address in self._home and self._idle(address):
            self._free[self._home[address]][address] = None
