"""How many more addresses a node could get: by its instance's limits, and by the subnets that it can reach. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ipam.model import Instance, Limits, NodeSpec, Subnet
from ipam.plan import CallLimits, attached, capacity, free_slots, pod_interfaces, prefix_block, slots_left, unit
from ipam.selection import candidates


@dataclass(frozen=True, slots=True)
class Obtainable:
    """
    :ivar by_limits: addresses that interfaces and limits of the instance leave room for.
    :ivar by_subnets: addresses that the subnets in reach have left, other nodes' wants aside.
    :ivar subnets: what each of these has left, by id; 0 for one that is passed over now.
    :ivar scattered: the subnets have fewer whole prefixes left than the instance could take.
    """

    by_limits: int = 0
    by_subnets: int = 0
    subnets: Mapping[str, int] = field(default_factory=dict)
    scattered: bool = False

    @property
    def addresses(self) -> int:
        return min(self.by_limits, self.by_subnets)

    @property
    def limited_by(self) -> str:
        """ "limits" or "subnets"."""
        return "limits" if self.by_limits <= self.by_subnets and not self.scattered else "subnets"


def obtainable(
    spec: NodeSpec,
    instance: Instance,
    limits: Limits,
    *,
    calls: CallLimits,
    subnets: Mapping[str, Subnet],
    blocked: Iterable[str] = (),
) -> Obtainable:
    """What a node could still get if nobody else took anything. The node's own maximum of its marks bounds it, too."""
    most = capacity(
        spec, instance, limits, creates_interfaces=calls.creates_interfaces, prefix_size=calls.prefix_size
    )  # fmt: skip
    if spec.watermarks.max_allocate:
        most = min(most, spec.watermarks.max_allocate)
    reach = {each.subnet_id for each in pod_interfaces(spec, instance) if slots_left(limits, each)}
    places = len(free_slots(spec, instance, limits)) if calls.creates_interfaces else 0
    if places:
        reach |= {each.id for each in candidates(spec, instance, subnets.values())}
    passed_over = set(blocked)
    left = {
        subnet_id: 0 if subnet_id in passed_over else subnets[subnet_id].free
        for subnet_id in sorted(reach)
        if subnet_id in subnets
    }
    by_limits = max(0, most - attached(spec, instance))
    total = sum(left.values())
    # Each new interface takes an address of its subnet for itself.
    held = sum(slots_left(limits, each) for each in pod_interfaces(spec, instance))
    per = max(limits.ipv4_per_interface - 1, 1)
    size = unit(spec, limits, calls.prefix_size)
    if size == 1:
        fresh = min(places, -(-max(0, min(by_limits, total) - held) // per))
        return Obtainable(by_limits, max(0, total - fresh), left)
    blocks = sum(_blocks(subnets[each], passed_over, size) for each in left)
    # A slot without a whole block holds one address. So many new interfaces as bring most, of these the fewest.
    fits = [held + number * per + min(blocks, held + number * per) * (size - 1) for number in range(places + 1)]
    fresh = max(range(places + 1), key=lambda number: (min(total - number, fits[number]), -number))
    by_subnets = max(0, min(total - fresh, fits[fresh]))
    return Obtainable(min(by_limits, fits[-1]), by_subnets, left, scattered=fits[-1] < by_limits)


def _blocks(subnet: Subnet, passed_over: Collection[str], size: int) -> int:
    """Whole blocks that the subnet may have left."""
    if subnet.id in passed_over or prefix_block(subnet.id) in passed_over:
        return 0
    most = subnet.free // size
    return most if subnet.free_prefixes is None else min(most, subnet.free_prefixes)
