"""Which cloud calls bring an instance `want` more addresses. Pure: facts in, calls out.

Interfaces that exist are filled first, since that costs one call; then interfaces are created. What cannot be planned
is told with a typed reason, never by guessing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ipam.model import CloudInterface, Instance, Limits, NodeSpec, SecurityGroup, Subnet
from ipam.selection import choose_security_groups, choose_subnet, matches

ATTACHED = "in-use"


class Shortfall(enum.StrEnum):
    """Why a plan brings fewer addresses than wanted."""

    UNKNOWN_TYPE = "unknown-type"
    AT_CAPACITY = "at-capacity"
    NO_SUBNET = "no-subnet"
    NO_SECURITY_GROUP = "no-security-group"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call of the cloud may do. `creates_interfaces` is false where interfaces come from elsewhere."""

    creates_interfaces: bool
    max_addresses_per_call: int
    max_addresses_on_create: int


@dataclass(frozen=True, slots=True)
class PlannedAssign:
    interface_id: str
    subnet_id: str
    count: int


@dataclass(frozen=True, slots=True)
class PlannedCreate:
    """Create, attach, protect: three calls for one interface. `secondary_count` is without the primary address."""

    subnet_id: str
    security_group_ids: tuple[str, ...]
    device_index: int
    network_card: int
    secondary_count: int


PlannedCall = PlannedAssign | PlannedCreate


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls in their order. `shortfall` with `why` and `remedy` when they bring fewer than wanted."""

    calls: tuple[PlannedCall, ...] = ()
    brings: int = 0
    shortfall: Shortfall | None = None
    why: str = ""
    remedy: str = ""


def carries_pods(spec: NodeSpec, interface: CloudInterface) -> bool:
    """Whether pods may use the interface: attached, not below the first index, not excluded by its tags."""
    if interface.device_index < spec.first_interface_index or interface.status != ATTACHED:
        return False
    excluded = spec.exclude_interface_tags
    return not (excluded and matches(interface.tags, excluded))


def pod_interfaces(spec: NodeSpec, instance: Instance) -> Iterator[CloudInterface]:
    return (interface for interface in instance.interfaces if carries_pods(spec, interface))


def attached(spec: NodeSpec, instance: Instance | None) -> int:
    """Addresses for pods on the instance."""
    return 0 if instance is None else sum(len(each.addresses) for each in pod_interfaces(spec, instance))


def free_indices(spec: NodeSpec, instance: Instance, limits: Limits) -> list[int]:
    """Device indices at which an interface for pods can still be attached, lowest first."""
    if len(instance.interfaces) >= limits.interfaces:
        return []
    taken = {interface.device_index for interface in instance.interfaces}
    slots = limits.interfaces - len(instance.interfaces)
    free = (index for index in range(max(spec.first_interface_index, 1), limits.interfaces) if index not in taken)
    return [index for index, _ in zip(free, range(slots), strict=False)]


def capacity(spec: NodeSpec, instance: Instance, limits: Limits, *, creates_interfaces: bool = True) -> int:
    """Addresses for pods that the instance can hold at most."""
    secondary = max(limits.ipv4_per_interface - 1, 0)
    held = sum(max(secondary, len(each.addresses)) for each in pod_interfaces(spec, instance))
    return held + (len(free_indices(spec, instance, limits)) * secondary if creates_interfaces else 0)


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
    """Plans calls that bring up to `want` addresses, never more than the instance or a subnet holds."""
    if want <= 0:
        return Plan()
    if limits is None:
        return Plan(
            shortfall=Shortfall.UNKNOWN_TYPE,
            why=f"nothing is known of instance type {instance.type or '(unknown)'}",
            remedy="add the type to the file that limits_file names",
        )
    free = {subnet.id: 0 if subnet.id in blocked else subnet.free for subnet in subnets}
    known = {subnet.id: subnet for subnet in subnets}
    planned: list[PlannedCall] = list(_fill(spec, instance, want, limits, calls, free))
    missing = want - sum(call.count for call in planned if isinstance(call, PlannedAssign))
    short = Plan()
    indices = free_indices(spec, instance, limits) if calls.creates_interfaces else []
    while missing > 0:
        if not indices:
            short = _at_capacity(spec, instance, limits, free)
            break
        groups = choose_security_groups(spec, instance, security_groups)
        if isinstance(groups, str):
            short = Plan(
                shortfall=Shortfall.NO_SECURITY_GROUP,
                why=groups,
                remedy="correct the node's security group ids or tags",
            )
            break
        subnet = choose_subnet(spec, instance, known, free, blocked)
        if isinstance(subnet, str):
            short = Plan(
                shortfall=Shortfall.NO_SUBNET,
                why=subnet,
                remedy="add a subnet in the node's zone, or free addresses in one",
            )
            break
        room = min(limits.ipv4_per_interface - 1, calls.max_addresses_on_create, free[subnet.id] - 1)
        count = min(missing, room)
        if count <= 0:
            short = Plan(shortfall=Shortfall.AT_CAPACITY, why=f"an interface of a {limits.instance_type} holds no pod")
            break
        planned.append(PlannedCreate(subnet.id, groups, indices.pop(0), 0, count))
        free[subnet.id] -= 1 + count
        missing -= count
    return Plan(tuple(planned), want - missing, short.shortfall, short.why, short.remedy)


def _fill(
    spec: NodeSpec,
    instance: Instance,
    want: int,
    limits: Limits,
    calls: CallLimits,
    free: dict[str, int],
) -> Iterator[PlannedAssign]:
    for interface in sorted(pod_interfaces(spec, instance), key=lambda each: each.device_index):
        room = limits.ipv4_per_interface - 1 - len(interface.addresses)
        # A node is told nothing of an interface in a subnet that is not looked at: addresses there would be lost.
        room = min(room, free.get(interface.subnet_id, 0), want)
        while room > 0:
            count = min(room, calls.max_addresses_per_call)
            yield PlannedAssign(interface.id, interface.subnet_id, count)
            room -= count
            want -= count
            free[interface.subnet_id] -= count


def _at_capacity(spec: NodeSpec, instance: Instance, limits: Limits, free: Mapping[str, int]) -> Plan:
    dry = sorted({
        each.subnet_id
        for each in pod_interfaces(spec, instance)
        if len(each.addresses) < limits.ipv4_per_interface - 1
        and free.get(each.subnet_id, 0) <= 0
    })  # fmt: skip
    if dry:
        return Plan(
            shortfall=Shortfall.NO_SUBNET,
            why=f"the interfaces have room, but no address is left in {', '.join(dry)}",
            remedy="free addresses in the subnet, or let an interface in another one be attached",
        )
    return Plan(
        shortfall=Shortfall.AT_CAPACITY,
        why=f"a {limits.instance_type} holds {limits.interfaces} interfaces x {limits.ipv4_per_interface} addresses",
        remedy="use a larger instance type, or move pods to other nodes",
    )
