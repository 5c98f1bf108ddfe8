"""Which address of the node is free, leased, cooling or fenced: bookkeeping in memory, without locks, clock or I/O.

Choice: `pack` takes the first interface by device index that has a free address, so that interfaces empty whole;
`spread` takes the interface with most free ones. Within an interface, the fullest prefix that has begun goes first,
then single addresses, and prefixes that are wholly free last, so that they stay so and can be given back. Within these,
the address freed longest ago goes first. Picking costs one step for each interface and prefix, however many addresses
there are.

Where an interface has IPv6, each pod gets an address of it beside its IPv4 one: out of the interface's prefix the one
with the same last 32 bits, else one of its single addresses, which cools along with its IPv4 address.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address, ip_network

from ipam.journal import ADDRESS6, Lease, Owner
from ipam.model import AddressState, PoolInterface, members

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
        self._free: dict[str, _Free] = {}  # by interface id
        self._cooling6: dict[str, str] = {}  # cooling address -> the IPv6 address that went with it

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
                self._free[interface_id].discard(address)
        self._home = home
        self._free = {name: self._free.get(name) or _Free() for name in self.interfaces}
        for interface in ordered:
            self._free[interface.id].delegate(interface.prefixes)
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
                free.add(address)
        return lifted

    def kept(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, PoolInterface]:
        """`interfaces`, and those that vanished from them but carry pods still: these go on, and get no new ones."""
        carrying = {lease.interface_id for lease in self.leases.values()}
        vanished = [one for one in self.interfaces.values() if one.id in carrying and one.id not in interfaces]
        return {**interfaces, **{one.id: replace(one, addresses={}) for one in vanished}}

    def pool_of(self, address: str) -> str:
        """The node's pool that the address belongs to; empty: the default one, which has what is of none, too."""
        interface = self.interfaces.get(self.home(address))
        return "" if interface is None else interface.pool

    def pick(self, pool: str = "") -> str | None:
        """Takes a free address of a pool out, None if there is none."""
        chosen: _Free | None = None
        for interface_id, free in self._free.items():
            if free and interface_id not in self.unusable and self.interfaces[interface_id].pool == pool:
                if self._choice is Choice.PACK:
                    chosen = free
                    break
                if chosen is None or len(free) > len(chosen):
                    chosen = free
        return None if chosen is None else chosen.pick()

    def address6(self, address: str) -> str:
        """The IPv6 address for a pod that gets `address`; empty if its interface has none to give."""
        interface = self.interfaces.get(self.home(address))
        if interface is None or ":" in address:
            return ""
        if interface.ipv6_prefixes:
            return derived(interface.ipv6_prefixes[0], address)
        taken = {lease.attributes.get(ADDRESS6) for lease in self.leases.values()} | set(self._cooling6.values())
        return next((each for each in interface.ipv6_addresses if each not in taken), "")

    def enter(self, lease: Lease) -> None:
        """The address is leased, whatever it was before."""
        self._not_free(lease.address)
        self.cooling.pop(lease.address, None)
        self._cooling6.pop(lease.address, None)
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
            self.cool(lease.address, cool_until, lease.attributes.get(ADDRESS6, ""))

    def cool(self, address: str, until: float, address6: str = "") -> None:
        """Nobody gets the address, nor the IPv6 address that went with it, before `until`. The soonest come first."""
        self.cooling[address] = until
        if address6:
            self._cooling6[address] = address6

    def expire(self, now: float) -> bool:
        """Ends cooldowns that are over. True if there were any."""
        before = len(self.cooling)
        while self.cooling and next(iter(self.cooling.values())) <= now:
            address, _ = self.cooling.popitem(last=False)
            self._cooling6.pop(address, None)
            self._to_free(address)
        return len(self.cooling) != before

    def fence_marked(self, waiting: Collection[str] = ()) -> None:
        """Fences the marked addresses that are free, but for those of pools that somebody waits for."""
        for address in self.marked:
            if self._idle(address) and not (waiting and self.pool_of(address) in waiting):
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
            self._free[self._home[address]].discard(address)

    def _to_free(self, address: str) -> None:
        if address in self._home and self._idle(address):
            self._free[self._home[address]].add(address)


class _Free:
    """Free addresses of one interface, by the prefix that they are members of; single ones under ""."""

    def __init__(self) -> None:
        self._groups: dict[str, OrderedDict[str, None]] = {"": OrderedDict()}
        self._prefix_of: dict[str, str] = {}
        self._prefixes: tuple[str, ...] = ()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, address: str) -> bool:
        return address in self._groups.get(self._prefix_of.get(address, ""), ())

    def delegate(self, prefixes: tuple[str, ...]) -> None:
        """Makes these the interface's prefixes."""
        if prefixes == self._prefixes:
            return
        held = [address for group in self._groups.values() for address in group]
        self._prefixes = prefixes
        self._prefix_of = {address: prefix for prefix in prefixes for address in members(prefix)}
        self._groups = {"": OrderedDict(), **{prefix: OrderedDict() for prefix in prefixes}}
        self._count = 0
        for address in held:
            self.add(address)

    def add(self, address: str) -> None:
        group = self._groups[self._prefix_of.get(address, "")]
        self._count += address not in group
        group[address] = None

    def discard(self, address: str) -> None:
        group = self._groups[self._prefix_of.get(address, "")]
        if address in group:
            del group[address]
            self._count -= 1

    def pick(self) -> str:
        """Takes one out. Raises KeyError when there is none."""
        group = min(
            (each for each in self._groups.items() if each[1]),
            key=lambda each: _rank(*each),
            default=("", OrderedDict()),
        )[1]
        address, _ = group.popitem(last=False)
        self._count -= 1
        return address


def _rank(prefix: str, free: Mapping[str, None]) -> tuple[int, int]:
    """Where a group stands: prefixes begun by how full they are, single addresses, prefixes wholly free."""
    if not prefix:
        return 1, 0
    return (0, len(free)) if len(free) < len(members(prefix)) else (2, 0)


def derived(prefix6: str, address: str) -> str:
    """The address of an IPv6 block, of at most 96 bits, whose last 32 bits are those of an IPv4 address."""
    return str(IPv6Address(int(ip_network(prefix6).network_address) | int(ip_address(address))))
