"""Which cloud calls bring an instance `want` more addresses. Pure: facts in, calls out.

Interfaces that exist are filled first, since that costs one call; then interfaces are created, spread over the network
cards. A node that asks for prefixes gets whole ones, and single addresses only where its type takes no prefixes or no
subnet within reach has a whole block left. What cannot be planned is told with a typed reason, never by guessing.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ipam.model import CloudInterface, Instance, Limits, NodeSpec, SecurityGroup, Subnet
from ipam.ports import Capabilities
from ipam.selection import choose_security_groups, choose_subnet, matches
from ipam.tags import POOL_TAG

ATTACHED = "in-use"
_NO_PREFIX = "/prefixes"


class Shortfall(enum.StrEnum):
    """Why a plan brings fewer addresses than wanted."""

    UNKNOWN_TYPE = "unknown-type"
    AT_CAPACITY = "at-capacity"
    NO_SUBNET = "no-subnet"
    NO_SECURITY_GROUP = "no-security-group"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call of the cloud may do. `creates_interfaces` is false where interfaces come from elsewhere.

    :ivar prefix_size: addresses of a delegated prefix; 0: the cloud has none.
    :ivar ipv6: interfaces can have IPv6 addresses; `ipv6_prefixes`: and blocks of them.
    """

    creates_interfaces: bool
    max_addresses_per_call: int
    max_addresses_on_create: int
    prefix_size: int = 0
    ipv6: bool = False
    ipv6_prefixes: bool = False


@dataclass(frozen=True, slots=True)
class PlannedAssign:
    """:ivar prefix_size: 0: `count` is of addresses; else of prefixes with so many addresses each."""

    interface_id: str
    subnet_id: str
    count: int
    prefix_size: int = 0

    @property
    def brings(self) -> int:
        return self.count * (self.prefix_size or 1)


@dataclass(frozen=True, slots=True)
class PlannedCreate:
    """Create, attach, and protect where creation cannot say it: two or three calls for one interface. `secondary_count`
    is without the primary address."""

    subnet_id: str
    security_group_ids: tuple[str, ...]
    device_index: int
    network_card: int
    secondary_count: int
    prefix_count: int = 0
    prefix_size: int = 0
    ipv6_count: int = 0
    ipv6_prefix_count: int = 0

    @property
    def brings(self) -> int:
        return self.secondary_count + self.prefix_count * self.prefix_size


PlannedCall = PlannedAssign | PlannedCreate


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls in their order. `shortfall` with `why` and `remedy` when they bring fewer than wanted."""

    calls: tuple[PlannedCall, ...] = ()
    brings: int = 0
    shortfall: Shortfall | None = None
    why: str = ""
    remedy: str = ""


def serving(calls: tuple[PlannedCall, ...], first: int) -> tuple[PlannedCall, ...]:
    """Those of the calls that bring `first` addresses; each brings as much as it was planned to."""
    brought = 0
    for number, call in enumerate(calls, start=1):
        brought += call.brings
        if brought >= first:
            return calls[:number]
    return calls


def call_limits(can: Capabilities) -> CallLimits:
    """What planning has to know of a cloud."""
    return CallLimits(
        can.creates_interfaces, can.max_addresses_per_call, can.max_addresses_on_create,
        prefix_size=can.prefix_size if can.prefixes else 0, ipv6=can.ipv6, ipv6_prefixes=can.ipv6_prefixes,
    )  # fmt: skip


def prefix_block(subnet_id: str) -> str:
    """Under this name a subnet is passed over for prefixes only, since it has no whole block left."""
    return subnet_id + _NO_PREFIX


def belongs(spec: NodeSpec, interface: CloudInterface) -> bool:
    """Whether the interface is of this pool of its node."""
    return interface.tags.get(POOL_TAG, "") == spec.pool


def carries_pods(spec: NodeSpec, interface: CloudInterface) -> bool:
    """Whether pods of this pool may use the interface: its own, attached, not below the first index, not excluded by
    its tags."""
    if not belongs(spec, interface):
        return False
    if interface.device_index < spec.first_interface_index or interface.status != ATTACHED:
        return False
    excluded = spec.exclude_interface_tags
    return not (excluded and matches(interface.tags, excluded))


def pod_interfaces(spec: NodeSpec, instance: Instance) -> Iterator[CloudInterface]:
    return (interface for interface in instance.interfaces if carries_pods(spec, interface))


def lends_primary(spec: NodeSpec, interface: CloudInterface) -> bool:
    """Whether the interface's primary address may carry a pod. The host itself lives on that of the first one."""
    return spec.use_primary_address and (interface.network_card, interface.device_index) != (0, 0)


def pod_addresses(spec: NodeSpec, interface: CloudInterface) -> tuple[str, ...]:
    """All addresses of the interface that pods may have."""
    own = interface.all_addresses
    return (interface.primary_address, *own) if lends_primary(spec, interface) else own


def attached(spec: NodeSpec, instance: Instance | None) -> int:
    """Addresses for pods on the instance."""
    return 0 if instance is None else sum(len(pod_addresses(spec, each)) for each in pod_interfaces(spec, instance))


def slots_left(limits: Limits, interface: CloudInterface) -> int:
    """Slots of an interface that neither addresses nor prefixes fill; below 0 never."""
    return max(limits.ipv4_per_interface - 1 - len(interface.addresses) - len(interface.prefixes), 0)


def unit(spec: NodeSpec, limits: Limits, prefix_size: int) -> int:
    """Addresses that fill one slot of an interface: those of a prefix, or one."""
    return prefix_size if prefix_size and spec.prefix_delegation and limits.prefixes else 1


def free_slots(spec: NodeSpec, instance: Instance, limits: Limits) -> list[tuple[int, int]]:
    """Network cards and device indices at which an interface for pods can still be attached.

    The card with fewest interfaces first, so that they spread over all; on each card the lowest index first.
    """
    room = limits.interfaces - len(instance.interfaces)
    taken = {(each.network_card, each.device_index) for each in instance.interfaces}
    held = Counter(card for card, _ in taken)
    cards = limits.card_interfaces or (limits.interfaces,)
    lowest = max(spec.first_interface_index, 1)
    free: dict[int, list[int]] = {}
    for card, most in enumerate(cards):
        # Index 0 is the host's own on the first card, and left alone on the others.
        highest = most if card == 0 else most + 1
        free[card] = [index for index in range(lowest, highest) if (card, index) not in taken][: most - held[card]]
    found: list[tuple[int, int]] = []
    while len(found) < room and any(free.values()):
        card = min((each for each in free if free[each]), key=lambda each: (held[each], each))
        found.append((card, free[card].pop(0)))
        held[card] += 1
    return found


def capacity(
    spec: NodeSpec, instance: Instance, limits: Limits, *, creates_interfaces: bool = True, prefix_size: int = 0
) -> int:
    """Addresses for pods that the instance can hold at most."""
    each_slot = unit(spec, limits, prefix_size)
    held = sum(
        len(pod_addresses(spec, each)) + slots_left(limits, each) * each_slot for each in pod_interfaces(spec, instance)
    )
    fresh = max(limits.ipv4_per_interface - 1, 0) * each_slot + spec.use_primary_address
    most = held + (len(free_slots(spec, instance, limits)) * fresh if creates_interfaces else 0)
    if limits.addresses_per_instance:
        most = min(most, attached(spec, instance) + instance_room(instance, limits))
    return most


def instance_room(instance: Instance, limits: Limits) -> int:
    """Addresses that the instance may take before its own limit; very many where there is none."""
    if not limits.addresses_per_instance:
        return 1 << 20
    return max(limits.addresses_per_instance - sum(1 + len(each.addresses) for each in instance.interfaces), 0)


def plan_allocation(
    spec: NodeSpec,
    instance: Instance,
    *,
    want: int,
    limits: Limits | None,
    calls: CallLimits,
    subnets: Iterable[Subnet],
    security_groups: Sequence[SecurityGroup],
    blocked: frozenset[str] = frozenset(),
) -> Plan:
    """Plans calls that bring up to `want` addresses, never more than the instance or a subnet holds.

    With prefixes the last of them may bring more than wanted.
    """
    if want <= 0:
        return Plan()
    if limits is None:
        return Plan(
            shortfall=Shortfall.UNKNOWN_TYPE,
            why=f"nothing is known of instance type {instance.type or '(unknown)'}",
            remedy="add the type to the file that limits_file names",
        )
    planner = _Planner(spec, instance, want, limits, calls, subnets, security_groups, blocked)
    if unit(spec, limits, calls.prefix_size) > 1:
        planner.plan(calls.prefix_size)
    short = planner.plan(0)
    return Plan(tuple(planner.calls), want - max(planner.missing, 0), short.shortfall, short.why, short.remedy)


class _Planner:
    """One plan on its way: what is missing, and what is left of interfaces and subnets by now."""

    def __init__(
        self,
        spec: NodeSpec,
        instance: Instance,
        want: int,
        limits: Limits,
        can: CallLimits,
        subnets: Iterable[Subnet],
        groups: Sequence[SecurityGroup],
        blocked: frozenset[str],
    ) -> None:
        self.calls: list[PlannedCall] = []
        self.missing = want
        self._spec, self._instance, self._limits, self._can = spec, instance, limits, can
        self._groups = groups
        self._blocked = blocked
        self._known = {subnet.id: subnet for subnet in subnets}
        self._free = {id: 0 if id in blocked else subnet.free for id, subnet in self._known.items()}
        self._blocks = {id: self._blocks_of(subnet) for id, subnet in self._known.items()}
        self._slots = {each.id: slots_left(limits, each) for each in pod_interfaces(spec, instance)}
        self._room = instance_room(instance, limits)
        self._known_places: list[tuple[int, int]] | None = None

    def _blocks_of(self, subnet: Subnet) -> int:
        """Whole prefixes that the subnet may still have."""
        if subnet.id in self._blocked or prefix_block(subnet.id) in self._blocked or not self._can.prefix_size:
            return 0
        most = subnet.free // self._can.prefix_size
        return most if subnet.free_prefixes is None else min(most, subnet.free_prefixes)

    @property
    def _places(self) -> list[tuple[int, int]]:
        """Where interfaces can still be attached. Most plans need none."""
        if self._known_places is None:
            can = self._can.creates_interfaces
            self._known_places = free_slots(self._spec, self._instance, self._limits) if can else []
        return self._known_places

    def plan(self, size: int) -> Plan:
        """Plans what is missing, in prefixes of `size` addresses, or in single ones if that is 0. What remains missing
        is told as a plan without calls."""
        self._fill(size)
        while self.missing > 0:
            if not self._places or self._room <= 1:
                return self._at_capacity()
            groups = choose_security_groups(self._spec, self._instance, self._groups)
            if isinstance(groups, str):
                remedy = "correct the node's security group ids or tags"
                return Plan(shortfall=Shortfall.NO_SECURITY_GROUP, why=groups, remedy=remedy)
            without = {id for id, left in self._blocks.items() if size and not left}
            subnet = choose_subnet(self._spec, self._instance, self._known, self._free, self._blocked | without)
            if isinstance(subnet, str):
                remedy = "add a subnet in the node's zone, or free addresses in one"
                return Plan(shortfall=Shortfall.NO_SUBNET, why=subnet, remedy=remedy)
            if not self._create(subnet, groups, size):
                why = f"an interface of a {self._limits.instance_type} holds no pod"
                return Plan(shortfall=Shortfall.AT_CAPACITY, why=why)
        return Plan()

    def _fill(self, size: int) -> None:
        interfaces = pod_interfaces(self._spec, self._instance)
        for interface in sorted(interfaces, key=lambda each: (each.device_index, each.network_card)):
            # A node is told nothing of an interface in a subnet that is not looked at: addresses there would be lost.
            free = self._free.get(interface.subnet_id, 0)
            if size:
                room = min(self._slots[interface.id], self._blocks.get(interface.subnet_id, 0), free // size)
                room = min(room, -(-self.missing // size))
            else:
                room = min(self._slots[interface.id], free, self.missing, self._room)
            while room > 0:
                count = min(room, self._can.max_addresses_per_call)
                call = PlannedAssign(interface.id, interface.subnet_id, count, size)
                self._take(call)
                self._slots[interface.id] -= count
                room -= count

    def _create(self, subnet: Subnet, groups: tuple[str, ...], size: int) -> bool:
        most = self._limits.ipv4_per_interface - 1
        lent = int(self._spec.use_primary_address)
        if size:
            most = min(most, self._can.max_addresses_on_create, self._blocks[subnet.id])
            count = max(min(-(-(self.missing - lent) // size), most, (self._free[subnet.id] - 1) // size), 0)
            addresses, prefixes = 0, count
        else:
            most = min(most, self._can.max_addresses_on_create, self._free[subnet.id] - 1, self._room - 1)
            count = addresses = max(min(self.missing - lent, most), 0)
            prefixes = 0
        if count + lent <= 0:
            return False
        card, index = self._places.pop(0)
        ipv6, ipv6_prefixes = wanted_ipv6(self._spec, subnet, self._limits, self._can, addresses + lent)
        call = PlannedCreate(
            subnet.id, groups, index, card, addresses, prefixes, size if prefixes else 0, ipv6, ipv6_prefixes
        )
        self._take(call)
        self.missing -= lent
        self._free[subnet.id] -= 1
        self._room -= 1
        return True

    def _take(self, call: PlannedCall) -> None:
        self.calls.append(call)
        self.missing -= call.brings
        self._free[call.subnet_id] -= call.brings
        if call.prefix_size:
            self._blocks[call.subnet_id] -= call.brings // call.prefix_size
        else:
            self._room -= call.brings

    def _at_capacity(self) -> Plan:
        dry = sorted({
            each.subnet_id
            for each in pod_interfaces(self._spec, self._instance)
            if self._slots[each.id] > 0
            and self._free.get(each.subnet_id, 0) <= 0
        })  # fmt: skip
        limits = self._limits
        if dry:
            return Plan(
                shortfall=Shortfall.NO_SUBNET,
                why=f"the interfaces have room, but no address is left in {', '.join(dry)}",
                remedy="free addresses in the subnet, or let an interface in another one be attached",
            )
        why = f"a {limits.instance_type} holds {limits.interfaces} interfaces x {limits.ipv4_per_interface} addresses"
        if limits.addresses_per_instance:
            why += f", {limits.addresses_per_instance} in all"
        remedy = "use a larger instance type, or move pods to other nodes"
        return Plan(shortfall=Shortfall.AT_CAPACITY, why=why, remedy=remedy)


def wanted_ipv6(spec: NodeSpec, subnet: Subnet, limits: Limits, calls: CallLimits, pods: int) -> tuple[int, int]:
    """Single IPv6 addresses and IPv6 prefixes that an interface should have for `pods` IPv4 addresses.

    One prefix has an address for each IPv4 address there is, so it is enough wherever the type takes prefixes.
    """
    if not spec.ipv6 or not subnet.ipv6_cidr or not limits.ipv6_per_interface:
        return 0, 0
    if calls.ipv6_prefixes and limits.prefixes:
        return 0, 1
    return (min(pods, limits.ipv6_per_interface), 0) if calls.ipv6 else (0, 0)
