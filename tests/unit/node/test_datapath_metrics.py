"""What Prometheus is told of packets, programs and events."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from datapath import layout
from datapath.view.model import HookCount
from datapath.view.testing import FakeDatapath
from services.node.metrics import DatapathCollector


def test_packets_programs_and_events() -> None:
    view = FakeDatapath()
    view.answer_counts = [
        HookCount(layout.HOOK_FROM_POD, layout.DROP_NONE, 10, 1000),
        HookCount(layout.HOOK_FROM_POD, layout.DROP_SPOOFED_ADDRESS, 2, 100),
    ]
    registry = CollectorRegistry()
    registry.register(DatapathCollector(view, {"flows": 131072}))
    told = generate_latest(registry).decode()
    for line in (
        'plimsoll_datapath_forwarded_packets_total{hook="from-pod"} 10.0',
        'plimsoll_datapath_forwarded_bytes_total{hook="from-pod"} 1000.0',
        'plimsoll_datapath_dropped_packets_total{hook="from-pod",reason="spoofed-address"} 2.0',
        'plimsoll_datapath_dropped_bytes_total{hook="from-pod",reason="spoofed-address"} 100.0',
        'plimsoll_datapath_map_max_entries{map="flows"} 131072.0',
        'plimsoll_datapath_program_verified_instructions{program="from_pod"} 4321.0',
        'plimsoll_datapath_attachments{program="from_pod"} 2.0',
        "plimsoll_datapath_endpoints 2.0",
        "plimsoll_datapath_generation 12.0",
        'plimsoll_datapath_events_total{outcome="lost"} 1.0',
        'plimsoll_datapath_events_total{outcome="suppressed"} 20.0',
    ):
        assert line in told, line
