"""What is simulated, as frozen facts. Times are simulated seconds since the beginning, which is midnight (UTC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ipam.config import IpamConfig
from ipam.model import NO_TAGS, Limits, Operation
from ipam.ports import Capabilities

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class CallRate:
    """A token bucket: `per_s` calls a second, `burst` of them at once after a pause."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class CloudRules:
    """What a cloud allows, and how long it takes.

    :ivar types: limits by instance type.
    :ivar seconds: until a mutating call has done what it does, by operation; an attachment includes its polling.
    :ivar throttle: of mutating calls of the account; what is beyond is refused.
    :ivar reserved: addresses of each subnet that the cloud keeps for itself.
    :ivar page: instances that one page of a listing tells.
    """

    name: str
    capabilities: Capabilities
    types: Mapping[str, Limits]
    seconds: Mapping[Operation, float]
    throttle: CallRate
    reserved: int
    page: int

    def seconds_of(self, operation: Operation) -> float:
        return self.seconds.get(operation, 0.0)


@dataclass(frozen=True, slots=True)
class SubnetRule:
    """:ivar taken: addresses that others have."""

    id: str
    cidr: str
    zone: str
    taken: int = 0


@dataclass(frozen=True, slots=True)
class PodStream:
    """Pods of one kind on each node of a group. All that is set comes together.

    :ivar standing: pods that are there from the node's beginning to the end.
    :ivar per_minute: pods that start by chance, on average over the day, a node and minute.
    :ivar burst_size: pods that start together, every `burst_every_s` seconds on average; the first time after
        `burst_first_s`. 0: none do.
    :ivar burst_spread_s: within which the pods of one burst start.
    :ivar together: all nodes have their bursts at the same moments, exactly `burst_every_s` apart.
    :ivar lifetime_s: how long a pod lives, on average.
    :ivar lifetime: how lifetimes differ: "exponential" or "fixed".
    :ivar day: factors for each hour of the day, on average 1; empty: the day has no shape. They apply to `per_minute`,
        and to `burst_size` of bursts by chance.
    """

    name: str = "pods"
    standing: int = 0
    per_minute: float = 0.0
    burst_size: int = 0
    burst_every_s: float = 3600.0
    burst_first_s: float = 0.0
    burst_spread_s: float = 1.0
    together: bool = False
    lifetime_s: float = 3600.0
    lifetime: str = "exponential"
    day: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of one type with the same pods.

    :ivar labels: of its nodes, by which overrides match.
    :ivar names: of recorded nodes, as patterns (web-*); empty: of every node that no other group has.
    :ivar zones: nodes are put into them in turn.
    :ivar join_over_s: the nodes appear one by one within it.
    """

    name: str
    type: str
    nodes: int = 1
    zones: tuple[str, ...] = ("a",)
    join_over_s: float = 0.0
    pods: tuple[PodStream, ...] = ()
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = NO_TAGS


@dataclass(frozen=True, slots=True)
class RecordedPod:
    """One pod that was."""

    node: str
    pod: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Workload:
    """
    :ivar measure_from_s: what happens earlier is simulated, and not counted: nodes fill, and forecasts learn.
    :ivar subnets: empty: each zone has one that is never full.
    :ivar recorded: pods that were, ordered by start; of their nodes, groups only tell the type.
    """

    name: str
    cloud: CloudRules
    groups: tuple[Group, ...]
    duration_s: float = DAY_S
    measure_from_s: float = 0.0
    seed: int = 1
    subnets: tuple[SubnetRule, ...] = ()
    recorded: tuple[RecordedPod, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings that are tried.

    :ivar config: of the service.
    :ivar budget: of the workers: mutating calls that they allow themselves.
    :ivar workers: calls that may be under way at a time.
    :ivar fifo: calls go as they come, as through a plain rate limiter; nobody goes first.
    :ivar cooldown_s: of the nodes: how long an address rests between two pods.
    :ivar reaction_s: from what happens on a node until a worker begins to act on it.
    """

    name: str
    config: IpamConfig
    prefix_delegation: bool = False
    use_primary_address: bool = False
    budget: CallRate = CallRate(10.0, 20.0)
    workers: int = 64
    fifo: bool = False
    cooldown_s: float = 30.0
    reaction_s: float = 0.05


@dataclass(frozen=True, slots=True)
class SubnetResult:
    """
    :ivar least_free: the fewest addresses that it had left.
    :ivar exhausted_at_s: when a node first wanted more than it had; None: never.
    :ivar refusals: how often that was so.
    """

    id: str
    size: int
    least_free: int
    exhausted_at_s: float | None
    refusals: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a variant did with a workload, from `measure_from_s` to the end.

    Idle addresses are held and carry no pod; those that cool are among them.

    :ivar calls: mutating calls and readings by operation, refused ones included.
    :ivar waits_s: how long each pod waited that found no free address, ascending; unserved ones up to their end.
    :ivar unserved: pods that ended, or whose simulation ended, before they got an address.
    :ivar at_capacity: nodes that at some time held all that their instance can.
    """

    variant: str
    pods: int
    waits_s: Sequence[float]
    unserved: int
    calls: Mapping[str, int]
    throttled: int
    held_mean: float
    idle_mean: float
    idle_peak: int
    idle_address_hours: float
    at_capacity: int
    nodes: int
    subnets: Sequence[SubnetResult] = ()
    wall_s: float = field(default=0.0, compare=False)

    @property
    def mutating_calls(self) -> int:
        return sum(count for name, count in self.calls.items() if name in MUTATING)

    def time_to_address_s(self, part: float) -> float:
        """The time that `part` of the pods did not exceed; 0 for those that found an address waiting."""
        at_once = self.pods - len(self.waits_s)
        place = min(int(part * self.pods), self.pods - 1) - at_once
        return self.waits_s[place] if place >= 0 and self.waits_s else 0.0


MUTATING = frozenset(str(each) for each in Operation)
