"""What the registry tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.registry.metrics import RegistryCollector
from services.registry.model import Capacity, Endpoint, Node
from services.registry.service import Fact, Registry
from services.registry.testing import FakeClock, MemoryStore
from services.runtime.watch import Topic


async def test_nodes_endpoints_and_watchers_are_counted() -> None:
    clock, topic, prometheus = FakeClock(), Topic[Fact](), CollectorRegistry()
    registry = Registry(MemoryStore(), topic, clock, lost_after_s=30)
    await registry.start()
    prometheus.register(RegistryCollector(registry, topic))
    session = await registry.open(Node("node-1"))
    clock.advance(30)
    await registry.sweep()
    await registry.open(Node("node-2"))
    watcher = topic.subscribe(name="node-2")
    await registry.report(session, [Endpoint("node-1", "c1/eth0"), Endpoint("node-1", "c2/eth0")])
    clock.advance(30)
    await registry.sweep()
    session = await registry.open(Node("node-2"))
    await registry.heartbeat(session, Capacity(attached=8, in_use=3, obtainable=20, limited_by="limits"))

    def value(name: str, **labels: str) -> float | None:
        return prometheus.get_sample_value(f"plimsoll_registry_{name}", labels)

    assert value("nodes", state="ready") == 1
    assert value("nodes", state="lost") == 1
    assert value("endpoints") == 2
    assert value("watchers") == 1
    assert value("identities", state="used") == 1
    assert value("identities", state="resting") == 0
    assert value("unmanaged_endpoints") == 0
    assert value("identities_exhausted_total") == 0
    told = [value(f"node_addresses_{name}", node="node-2") for name in ("attached", "in_use", "obtainable")]
    assert told == [8, 3, 20]
    assert value("watch_lag_revisions") == topic.position.revision
    watcher.close()
