"""What the compiled programs tell, through the real ring buffer and the hub, to a reader who filters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from datapath import layout
from datapath.events import words
from datapath.events.filters import Filter, compile_filter
from datapath.events.hub import EventHub
from datapath.events.model import Event
from datapath.events.testing import FakeNames
from datapath.loader.programs import SkbContext
from tests.datapath.programs.bed import HOST_MAC, WORLD4, A, B, ProgramBed
from tests.datapath.programs.packets import ip, tcp

pytestmark = pytest.mark.root


@pytest.fixture
def hub(bed: ProgramBed) -> Iterator[EventHub]:
    with EventHub(bed.ring, gather_s=0.001) as one:
        yield one


@pytest.fixture
def names(bed: ProgramBed) -> FakeNames:
    devices = {bed.ifindex[f"plm{name}"]: (f"plm{name}", f"shop/{name}") for name in ("a", "b")}
    return FakeNames({A.address4: "shop/a", B.address4: "shop/b"}, devices)


def send(bed: ProgramBed, port: int, *, source: str = A.address4, destination: str = B.address4) -> None:
    frame = Ether(src=A.mac, dst=HOST_MAC) / ip(source, destination) / tcp(4000, port, "S")
    context = SkbContext(ifindex=bed.ifindex["plma"]).pack()
    bed.programs["from_pod"].test_run(bytes(frame), context=context)


def gathered(hub: EventHub, names: FakeNames, wanted: Filter, happen: Callable[[], None], count: int) -> list[Event]:
    came = threading.Event()
    found: list[Event] = []
    with hub.subscribe(compile_filter(wanted, names), came.set) as subscription:
        happen()
        while len(found) < count:
            assert came.wait(5), f"only {len(found)} of {count} events came"
            came.clear()
            found += subscription.take().events
    return found


def test_a_forged_address_is_told_with_the_pod_that_forged_it(bed: ProgramBed, hub: EventHub, names: FakeNames) -> None:
    wanted = Filter(pods=("shop/a",), verdicts=("dropped",))
    (event,) = gathered(hub, names, wanted, lambda: send(bed, 80, source="192.0.2.200", destination=WORLD4), 1)
    assert words.reason_of(event.reason).word == "spoofed-address"
    assert words.source_line(event.file, event.line).startswith("pod.bpf.c:")
    assert Ether(event.packet)[TCP].dport == 80
    assert event.hook == layout.HOOK_FROM_POD


def test_a_connection_is_told_and_filters_hold(bed: ProgramBed, hub: EventHub, names: FakeNames) -> None:
    def two() -> None:
        send(bed, 80)
        send(bed, 443)

    (event,) = gathered(hub, names, Filter(types=("flow-new",), ports=(443,)), two, 1)
    assert event.destination_port == 443
    assert layout.address_text(event.destination) == B.address4
    assert (event.source_identity, event.destination_identity) == (A.identity, B.identity)


def test_times_are_now(bed: ProgramBed, hub: EventHub, names: FakeNames) -> None:
    import time

    before_ns = time.monotonic_ns()
    (event,) = gathered(hub, names, Filter(types=("flow-new",)), lambda: send(bed, 80), 1)
    assert before_ns < event.time_ns < time.monotonic_ns()


def test_a_flood_is_bounded_by_the_programs_and_counted(bed: ProgramBed, hub: EventHub, names: FakeNames) -> None:
    bed.set_runtime(drop_events_per_tick=1)

    def flood() -> None:
        frame = Ether(src=B.mac, dst=HOST_MAC) / ip(A.address4, B.address4) / tcp(4000, 80, "S")
        context = SkbContext(ifindex=bed.ifindex["plma"]).pack()
        for _ in range(2000):
            bed.programs["from_pod"].test_run(bytes(frame), context=context)

    events = gathered(hub, names, Filter(types=("drop",)), flood, 2)
    assert len(events) < 1000
    assert sum(event.suppressed for event in events) > 0
    assert hub.counts().suppressed > 0
