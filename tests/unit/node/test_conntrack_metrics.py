"""What Prometheus is told of connections."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from datapath import layout
from datapath.conntrack.gc import Collector
from datapath.fake_maps import FakeMap
from datapath.layout import Flow, FlowKey, address_bytes
from services.node.metrics import ConntrackCollector


def test_what_the_last_pass_saw() -> None:
    flows = FakeMap(layout.FLOW_KEY_SIZE, layout.FLOW_SIZE, 10, "lru")
    nat = FakeMap(layout.NAT_KEY_SIZE, layout.NAT_SIZE, 10, "lru")
    fragments = FakeMap(layout.FRAGMENT_KEY_SIZE, layout.FRAGMENT_SIZE, 10, "lru")
    for port, ends in ((1, 2000), (2, 2000), (3, 5)):
        key = FlowKey(address_bytes("10.0.0.1"), address_bytes("10.0.0.2"), port, 80, 6)
        flows.update(key.pack(), Flow(expires_j=ends, state=2).pack())
    collector = Collector(flows, nat, fragments, now_j=lambda: 1000, fragment_j=1)
    registry = CollectorRegistry()
    registry.register(ConntrackCollector(collector))
    assert b"plimsoll_datapath_gc_passes_total 0.0" in generate_latest(registry), "before the first pass, too"
    collector.collect()
    told = generate_latest(registry).decode()
    for line in (
        'plimsoll_datapath_map_entries{map="flows"} 2.0',
        'plimsoll_datapath_map_pressure{map="flows"} 0.2',
        'plimsoll_datapath_map_evictions_total{map="flows"} 0.0',
        'plimsoll_datapath_flows{family="ipv4",protocol="tcp",state="open"} 2.0',
        'plimsoll_datapath_gc_deleted_total{map="flows",why="expired"} 1.0',
        'plimsoll_datapath_gc_deleted_total{map="nat",why="forgotten"} 0.0',
        "plimsoll_datapath_gc_passes_total 1.0",
    ):
        assert line in told, line
