"""What people and programs read of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ipam.capacity import Exhaustion
from ipam.degradation import Degradation
from ipam.fleet import Fleet
from ipam.model import AddressState, NodeSpec, OperationCount, PoolInterface, Watermarks
from ipam.obtainable import Obtainable, obtainable
from ipam.overrides import matching
from ipam.pools import Pool
from ipam.ports import Block
from ipam.review import Reviewer
from ipam.watermarks import needed

NO_EXHAUSTIONS: Mapping[str, Exhaustion] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PoolView:
    """A node's pool. `capacity` and the limits are 0 while unknown; addresses have the node's own words in them.

    :ivar obtainable: None while instance or limits are unknown.
    :ivar full: the instance takes no more addresses.
    """

    spec: NodeSpec
    instance_type: str
    zone: str
    interfaces: Mapping[str, PoolInterface]
    attached: int
    in_use: int
    cooling: int
    needed: int
    excess: int
    capacity: int
    interface_limit: int
    addresses_per_interface: int
    connected: bool
    pending_pods: int
    open_intents: int
    last_error: str
    last_synced_at: float
    marks: Watermarks = Watermarks()
    marks_why: str = ""
    overrides: tuple[str, ...] = ()
    obtainable: Obtainable | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class LevelView:
    """How much of its work the service does. `until_at`: when what was set by hand ends; 0: without end."""

    level: Degradation = Degradation.NORMAL
    by_hand: Degradation = Degradation.NORMAL
    by_budget: Degradation = Degradation.NORMAL
    why: str = ""
    until_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SubnetView:
    """:ivar exhaustion: None: no listing has ended since this replica leads."""

    id: str
    vpc_id: str
    cidr: str
    zone: str
    free: int
    blocked_until_at: float = 0.0
    blocked_why: str = ""
    exhaustion: Exhaustion | None = None


@dataclass(frozen=True, slots=True)
class Status:
    leader: bool
    nodes: int
    nodes_in_deficit: int
    nodes_at_capacity: int
    open_intents: int
    dead_letters: int
    operations: tuple[OperationCount, ...]
    subnets: tuple[SubnetView, ...]
    last_resync_at: float
    level: LevelView = LevelView()


def view_level(fleet: Fleet, now: float) -> LevelView:
    """:param now: wall-clock seconds."""
    throttle = fleet.throttle
    hand = throttle.by_hand.at(now)
    until_at = throttle.by_hand.until_at if hand else 0.0
    return LevelView(throttle.level(now), hand, throttle.by_budget.level, throttle.why(now), until_at)


def view_pool(fleet: Fleet, reviewer: Reviewer, pool: Pool) -> PoolView:
    counts = pool.counts()
    limits = reviewer.limits(pool)
    interfaces = pool.interfaces_for_people(fleet.subnets)
    states = [state for each in interfaces.values() for state in each.addresses.values()]
    estimate = reviewer.wishes.estimate(pool)
    marks = estimate.marks
    instance = pool.instance
    return PoolView(
        spec=pool.spec,
        instance_type=instance.type if instance else pool.spec.instance_type,
        zone=instance.zone if instance else "",
        interfaces=interfaces,
        attached=pool.attached(),
        in_use=states.count(AddressState.IN_USE),
        cooling=states.count(AddressState.COOLING),
        needed=needed(counts.attached, counts.used, marks),
        excess=reviewer.wishes.excess(pool, counts),
        capacity=reviewer.capacity(pool),
        interface_limit=limits.interfaces if limits else 0,
        addresses_per_interface=limits.ipv4_per_interface if limits else 0,
        connected=pool.connected,
        pending_pods=counts.pending,
        open_intents=1 if pool.intent_id else 0,
        last_error=pool.error,
        last_synced_at=pool.synced_at,
        marks=marks,
        marks_why=estimate.why,
        overrides=tuple(each.name for each in matching(reviewer.config.overrides, pool.spec.labels)),
        obtainable=None
        if limits is None or instance is None
        else obtainable(
            pool.spec, instance, limits, calls=reviewer.call_limits(), subnets=fleet.subnets, blocked=fleet.blocks
        ),
        full=not reviewer.room(pool),
    )


def categories(fleet: Fleet, reviewer: Reviewer) -> tuple[int, int]:
    """How many pools are in deficit, and how many of these are at capacity."""
    in_deficit = at_capacity = 0
    for pool in fleet.pools.values():
        counts = pool.counts()
        if needed(counts.attached, counts.used, reviewer.wishes.marks(pool)):
            in_deficit += 1
            at_capacity += not reviewer.room(pool)
    return in_deficit, at_capacity


def view_status(
    fleet: Fleet,
    in_need: tuple[int, int],
    *,
    last_resync_at: float,
    now: float,
    exhaustions: Mapping[str, Exhaustion] = NO_EXHAUSTIONS,
) -> Status:
    """:param in_need: as `categories` counts them."""
    in_deficit, at_capacity = in_need
    blocks = {subnet_id: block for subnet_id, (block, _) in fleet.blocks.items()}
    return Status(
        leader=True,
        nodes=len(fleet.of_instance),
        nodes_in_deficit=in_deficit,
        nodes_at_capacity=at_capacity,
        open_intents=len(fleet.intents),
        dead_letters=len(fleet.dead),
        operations=tuple(OperationCount(name, *counts) for name, counts in sorted(fleet.operations.items())),
        subnets=tuple(
            SubnetView(
                each.id,
                each.vpc_id,
                each.cidr,
                each.zone,
                each.free,
                block.until_at,
                block.why,
                exhaustions.get(each.id),
            )
            for each in fleet.subnets.values()
            for block in [blocks.get(each.id, Block(each.id, 0.0, ""))]
        ),
        last_resync_at=last_resync_at,
        level=view_level(fleet, now),
    )
