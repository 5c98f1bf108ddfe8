"""Connections that fell silent: the collector finds them, and subscribers hear of their end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datapath import layout
from datapath.conntrack.gc import Collector
from datapath.events import expired
from datapath.events.expired import closed_events
from datapath.events.hub import EventHub
from datapath.events.model import Event
from datapath.events.testing import FakeRecords
from datapath.fake_maps import FakeMap
from datapath.layout import Flow, FlowKey, Path, address_bytes

NOW, OVER, SOON = 100_000, 99_000, 200_000
POD, WEB = address_bytes("10.0.0.5"), address_bytes("192.0.2.80")
KEY = FlowKey(POD, WEB, 40000, 443, 6)
FLOW = Flow(expires_j=OVER, state=2, low_identity=300, high_identity=2, from_low=Path(in_ifindex=7, out_ifindex=2))


def events(key: FlowKey = KEY, flow: Flow = FLOW) -> list[Event]:
    return closed_events([(key.pack(), flow.pack())])


def test_it_is_told_from_the_side_that_began() -> None:
    [event] = events()
    assert (event.type, event.protocol, event.hook) == (layout.EVENT_FLOW_CLOSED, 6, layout.HOOK_FROM_POD)
    assert (event.source, event.source_port, event.source_identity) == (POD, 40000, 300)
    assert (event.destination, event.destination_port, event.destination_identity) == (WEB, 443, 2)
    assert (event.ifindex, event.out_ifindex) == (7, 2)
    [turned] = events(flow=replace(FLOW, flags=layout.FLOW_ORIGIN_HIGH, from_high=Path(in_ifindex=0)))
    assert (turned.source, turned.source_port, turned.hook) == (WEB, 443, layout.HOOK_FROM_DEVICE)
    [by_stack] = events(flow=replace(FLOW, from_low=Path(in_ifindex=layout.IN_STACK)))
    assert (by_stack.hook, by_stack.ifindex) == (layout.HOOK_TO_POD, 0)


@pytest.mark.parametrize(
    "flow",
    [
        pytest.param(replace(FLOW, flags=layout.FLOW_TOLD_CLOSED), id="a packet has told it"),
        pytest.param(replace(FLOW, from_low=Path(flags=layout.PATH_DENIED)), id="denied: it never began"),
    ],
)
def test_some_make_none(flow: Flow) -> None:
    assert events(flow=flow) == []


def test_of_very_many_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expired, "MOST", 10)
    told = closed_events([(replace(KEY, low_port=port).pack(), FLOW.pack()) for port in range(25)])
    assert len(told) == 10
    assert [event.suppressed for event in told] == [0] * 9 + [15]


def test_who_subscribes_hears_of_those_that_a_pass_takes_out() -> None:
    flows = FakeMap(layout.FLOW_KEY_SIZE, layout.FLOW_SIZE, 100, "lru")
    nat = FakeMap(layout.NAT_KEY_SIZE, layout.NAT_SIZE, 10, "lru")
    fragments = FakeMap(layout.FRAGMENT_KEY_SIZE, layout.FRAGMENT_SIZE, 10, "lru")
    collector = Collector(flows, nat, fragments, now_j=lambda: NOW, fragment_j=1)
    hub = EventHub(FakeRecords())
    collector.ended = lambda ended: hub.give(closed_events(ended))
    flows.update(KEY.pack(), FLOW.pack())
    flows.update(replace(KEY, low_port=1).pack(), replace(FLOW, expires_j=SOON).pack())
    subscription = hub.subscribe(lambda event: event.type == layout.EVENT_FLOW_CLOSED)
    heard = [hub.heard]
    hub.add(subscription)
    assert [*heard, hub.heard] == [False, True]
    collector.collect()
    assert [event.source_port for event in subscription.take().events] == [40000]
    collector.collect()
    assert not subscription.take().events, "told once"
