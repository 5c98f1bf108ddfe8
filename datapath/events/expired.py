"""Connections that fell silent, as the event by which those that end tell so: no packet says it, but the collector."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from itertools import islice
from typing import Final

from datapath.events.model import Event
from datapath.layout import (
    EVENT_FLOW_CLOSED,
    FLOW_ORIGIN_HIGH,
    FLOW_TOLD_CLOSED,
    HOOK_FROM_DEVICE,
    HOOK_FROM_POD,
    HOOK_TO_POD,
    IN_STACK,
    PATH_DENIED,
    Flow,
    FlowKey,
)

# At once: a subscriber's queue holds a few times as many. The rest is told as suppressed.
MOST: Final = 4096


def closed_events(flows: Iterable[tuple[bytes, bytes]]) -> list[Event]:
    """Of flows that have expired, key and value each. Those that were denied, or have told of their end, make none."""
    now_ns = time.monotonic_ns()
    found = (event for key, value in flows if (event := _closed(key, value, now_ns)) is not None)
    told = list(islice(found, MOST))
    left_out = sum(1 for _ in found)
    return [*told[:-1], told[-1]._replace(suppressed=left_out)] if left_out else told


def _closed(key: bytes, value: bytes, now_ns: int) -> Event | None:
    flow, ends = Flow.unpack(value), FlowKey.unpack(key)
    high = bool(flow.flags & FLOW_ORIGIN_HIGH)
    path = flow.from_high if high else flow.from_low
    if flow.flags & FLOW_TOLD_CLOSED or path.flags & PATH_DENIED:
        return None
    low_end = (ends.low, socket.htons(ends.low_port), flow.low_identity)
    high_end = (ends.high, socket.htons(ends.high_port), flow.high_identity)
    (source, source_port_be, source_identity), (destination, destination_port_be, destination_identity) = (
        (high_end, low_end) if high else (low_end, high_end)
    )
    ifindex = 0 if path.in_ifindex == IN_STACK else path.in_ifindex
    hook = HOOK_TO_POD if path.in_ifindex == IN_STACK else HOOK_FROM_POD if ifindex else HOOK_FROM_DEVICE
    return Event(
        time_ns=now_ns, type=EVENT_FLOW_CLOSED, hook=hook, reason=0, verdict=0, line=0, protocol=ends.protocol,
        action=path.action, source=source, destination=destination, source_port_be=source_port_be,
        destination_port_be=destination_port_be, ifindex=ifindex, out_ifindex=path.out_ifindex,
        source_identity=source_identity, destination_identity=destination_identity, rule=0, suppressed=0, length=0,
        data_length=0, file=0, cpu=0, data=b"",
    )  # fmt: skip
