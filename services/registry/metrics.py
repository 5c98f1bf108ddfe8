"""What the registry tells Prometheus, as it is when asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.registry.model import UNMANAGED, NodeState
from services.registry.service import Fact, Registry
from services.runtime.watch import Topic

_CAPACITY: Final = {
    "attached": "Addresses that the node holds, as it told last.",
    "in_use": "Addresses that its pods use, as it told last.",
    "obtainable": "Addresses that it could still get, as it told last.",
}


class RegistryCollector(Collector):
    def __init__(self, registry: Registry, topic: Topic[Fact]) -> None:
        self._registry = registry
        self._topic = topic

    def collect(self) -> Iterator[Metric]:
        states = [node.state for node in self._registry.nodes.values()]
        nodes = GaugeMetricFamily("plimsoll_registry_nodes", "Nodes by state.", labels=["state"])
        for state in NodeState:
            nodes.add_metric([str(state)], states.count(state))
        yield nodes
        yield GaugeMetricFamily(
            "plimsoll_registry_endpoints",
            "Endpoints of all nodes.",
            value=sum(len(endpoints) for endpoints in self._registry.endpoints.values()),
        )
        identities = self._registry.identities
        numbers = GaugeMetricFamily(
            "plimsoll_registry_identities", "Numbers of sets of labels by whether endpoints use them.", labels=["state"]
        )
        numbers.add_metric(["used"], len(identities) - identities.resting)
        numbers.add_metric(["resting"], identities.resting)
        numbers.add_metric(["free"], identities.free)
        yield numbers
        yield GaugeMetricFamily(
            "plimsoll_registry_unmanaged_endpoints",
            "Endpoints without an identity, for lack of numbers.",
            value=sum(
                endpoint.identity == UNMANAGED
                for endpoints in self._registry.endpoints.values()
                for endpoint in endpoints.values()
            ),
        )
        yield CounterMetricFamily(
            "plimsoll_registry_identities_exhausted", "Times that no number was left.", value=identities.refusals
        )
        for name, text in _CAPACITY.items():
            family = GaugeMetricFamily(f"plimsoll_registry_node_addresses_{name}", text, labels=["node"])
            for node, capacity in self._registry.capacities.items():
                family.add_metric([node], getattr(capacity, name))
            yield family
        subscribers = self._topic.subscribers
        yield GaugeMetricFamily("plimsoll_registry_watchers", "Open watch streams.", value=len(subscribers))
        newest = self._topic.position.revision
        yield GaugeMetricFamily(
            "plimsoll_registry_watch_lag_revisions",
            "Changes that the slowest watcher has not been sent yet.",
            value=max((newest - subscriber.sent for subscriber in subscribers), default=0),
        )
