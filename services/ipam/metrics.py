"""What an IPAM service tells Prometheus: its pools as they are when asked, and what has happened since it started."""

from __future__ import annotations

import asyncio
import math
from collections import Counter as Count
from collections.abc import Callable, Iterator
from contextlib import suppress

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ipam.errors import IpamError
from ipam.model import AddressState, IntentKind, Outcome, PoolInterface, members
from ipam.service import PoolService
from ipam.views import PoolView, Status

SLICE = 20  # pools read at once: a few milliseconds
_DURATION_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_POOL_GAUGES: dict[str, tuple[str, Callable[[PoolView], float]]] = {
    "addresses_attached": ("Addresses attached to the node.", lambda view: view.attached),
    "addresses_needed": ("Addresses that the node lacks by its marks.", lambda view: view.needed),
    "addresses_kept_free": (
        "Addresses kept free beyond those in use, by the marks in force.",
        lambda view: view.marks.pre_allocate,
    ),
    "addresses_excess": ("Addresses that the node has above its marks.", lambda view: view.excess),
    "addresses_capacity": ("Addresses that the instance can hold; 0 while unknown.", lambda view: view.capacity),
    "addresses_obtainable": (
        "Addresses that the node could still get, by its limits and the subnets in reach; 0 while unknown.",
        lambda view: view.obtainable.addresses if view.obtainable else 0,
    ),
    "pending_pods": ("Pods of the node that wait for an address.", lambda view: view.pending_pods),
    "interface_candidates": (
        "Interfaces of the node that have room for another address.",
        lambda view: sum(_slots(each) < view.addresses_per_interface for each in view.interfaces.values()),
    ),
    "interface_slots_empty": (
        "Interfaces that could still be attached to the node.",
        lambda view: max(0, view.interface_limit - len(view.interfaces)),
    ),
    "node_connected": ("1 while the node's stream is open.", lambda view: view.connected),
}


def _slots(interface: PoolInterface) -> int:
    """Slots of an interface that are filled: by the primary address, by others, and by prefixes."""
    of_prefixes = sum(len(members(prefix)) for prefix in interface.prefixes)
    others = len(interface.addresses) - of_prefixes - (interface.primary_address in interface.addresses)
    return 1 + others + len(interface.prefixes)


class IpamMetrics:
    """Counters of events; handlers feed them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._intents = Histogram(
            "plimsoll_ipam_intent_duration_seconds",
            "From a worker's claim of an intent to its outcome: done, retry or giveup.",
            ["kind", "outcome"],
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self._releases = Counter(
            "plimsoll_ipam_release_checks",
            "Addresses that workers asked to release, by the answer of the lease check.",
            ["answer"],
            registry=registry,
        )
        self._resyncs = Counter("plimsoll_ipam_resyncs", "Full listings merged.", registry=registry)
        self._corrected = Counter(
            "plimsoll_ipam_resync_corrections", "Instances that a full listing found different.", registry=registry
        )

    def completed(self, kind: IntentKind, outcome: Outcome, seconds: float) -> None:
        self._intents.labels(str(kind), type(outcome).__name__.lower()).observe(seconds)

    def release_asked(self, *, allowed: int, refused: int) -> None:
        self._releases.labels("allowed").inc(allowed)
        self._releases.labels("refused").inc(refused)

    def resynced(self, corrected: int) -> None:
        self._resyncs.inc()
        self._corrected.inc(corrected)


class PoolCollector(Collector):
    """Reads the service when Prometheus asks, in the loop that owns it. Without the lead there is only that to tell."""

    def __init__(self, service: PoolService) -> None:
        self._service = service
        self._prepared: _PoolFamilies | None = None

    async def prepare(self) -> None:
        """Reads the pools a few at a time: reading those of a large fleet at once would keep nodes waiting."""
        self._prepared = None
        if not self._service.leads:
            return
        families = _PoolFamilies()
        for number, name in enumerate(self._service.names()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            with suppress(IpamError):  # it is gone by now, or so is the lead
                families.add(self._service.pool(name))
        self._prepared = families

    def collect(self) -> Iterator[Metric]:
        yield _gauge("leader", "1 while this replica leads.", float(self._service.leads))
        families, self._prepared = self._prepared, None
        if not self._service.leads:
            return
        try:
            if families is None:
                families = _PoolFamilies()
                for view in self._service.pools():
                    families.add(view)
            status = self._service.status((families.in_deficit, families.at_capacity))
            intents = Count(str(each.kind) for each in self._service.intents())
        except IpamError:
            return
        yield from families.gauges.values()
        yield families.states
        yield from _of_status(status)
        family = GaugeMetricFamily("plimsoll_ipam_intents_open", "Intents that are owed to the cloud.", labels=["kind"])
        for kind in IntentKind:
            family.add_metric([str(kind)], intents[str(kind)])
        yield family

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known when collected."""
        return iter(())


class _PoolFamilies:
    """What is told of each pool, and how many are in need."""

    def __init__(self) -> None:
        self.gauges = {
            name: GaugeMetricFamily(f"plimsoll_ipam_{name}", text, labels=["node"])
            for name, (text, _) in _POOL_GAUGES.items()
        }
        self.states = GaugeMetricFamily(
            "plimsoll_ipam_addresses", "Addresses of the node by state.", labels=["node", "state"]
        )
        self.in_deficit = self.at_capacity = 0

    def add(self, view: PoolView) -> None:
        for name, (_, read) in _POOL_GAUGES.items():
            self.gauges[name].add_metric([view.spec.name], float(read(view)))
        states = Count(state for each in view.interfaces.values() for state in each.addresses.values())
        for state in AddressState:
            self.states.add_metric([view.spec.name, str(state)], states[state])
        if view.needed:
            self.in_deficit += 1
            self.at_capacity += view.full


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"plimsoll_ipam_{name}", text, value=value)


def _of_status(status: Status) -> Iterator[Metric]:
    nodes = GaugeMetricFamily("plimsoll_ipam_nodes", "Nodes by category.", labels=["category"])
    for category, count in (
        ("total", status.nodes),
        ("in-deficit", status.nodes_in_deficit),
        ("at-capacity", status.nodes_at_capacity),
    ):
        nodes.add_metric([category], count)
    yield nodes
    level = GaugeMetricFamily(
        "plimsoll_ipam_degradation_level",
        "How much is left out: 0 nothing, 1 releases, 2 all changes, 3 all calls; by who asked for it.",
        labels=["by"],
    )
    for source, value in (("hand", status.level.by_hand), ("budget", status.level.by_budget)):
        level.add_metric([source], float(value))
    yield level
    yield _gauge("dead_letters", "Intents that gave up and were not replayed.", status.dead_letters)
    yield _gauge("last_resync_timestamp_seconds", "When the last full listing ended; 0: never.", status.last_resync_at)
    free = GaugeMetricFamily("plimsoll_ipam_subnet_free", "Free addresses of a subnet.", labels=["subnet", "zone"])
    blocked = GaugeMetricFamily(
        "plimsoll_ipam_subnet_blocked", "1 while the subnet is passed over.", labels=["subnet", "zone"]
    )
    runs_out = GaugeMetricFamily(
        "plimsoll_ipam_subnet_exhaustion_seconds",
        "From the last listing until the subnet has no free address, by its trend; absent while not in sight.",
        labels=["subnet", "zone"],
    )
    for subnet in status.subnets:
        if subnet.exhaustion and math.isfinite(subnet.exhaustion.in_s):
            runs_out.add_metric([subnet.id, subnet.zone], subnet.exhaustion.in_s)
        free.add_metric([subnet.id, subnet.zone], subnet.free)
        blocked.add_metric([subnet.id, subnet.zone], float(subnet.blocked_until_at > 0))
    yield free
    yield blocked
    yield runs_out
    calls = CounterMetricFamily(
        "plimsoll_ipam_cloud_calls", "Calls that workers made, as they reported them.", labels=["operation", "outcome"]
    )
    for each in status.operations:
        calls.add_metric([each.operation, "ok"], each.calls - each.throttled - each.failed)
        calls.add_metric([each.operation, "throttled"], each.throttled)
        calls.add_metric([each.operation, "failed"], each.failed)
    yield calls
