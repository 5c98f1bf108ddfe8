"""Events from the bytes of the ring buffer to lines that people read."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from datapath import layout
from datapath.errors import InvalidFilter
from datapath.events import words
from datapath.events.aggregate import Aggregator
from datapath.events.decode import SIZE, decode, glance
from datapath.events.filters import Filter, compile_filter
from datapath.events.hub import EventHub
from datapath.events.model import Event
from datapath.events.testing import FakeNames, FakeRecords, event_record

TYPES_H = (Path(__file__).parents[3] / "bpf" / "include" / "types.h").read_text()

DENIED = event_record(
    type=layout.EVENT_DROP, reason=6, source="10.0.1.5", destination="10.0.2.9", source_port=40000,
    destination_port=443, protocol="tcp", ifindex=7, verdict=layout.POLICY_DENY, rule=3, suppressed=5, length=74,
    packet=b"\x01\x02",
)  # fmt: skip


def numbers(prefix: str) -> dict[int, str]:
    """Names of types.h by their numbers, without the prefix."""
    found = re.findall(rf"#define {prefix}_(\w+) (\d+)\b", TYPES_H)
    return {int(number): name.lower().replace("_", "-") for name, number in found}


class TestWords:
    def test_every_number_of_the_header_has_its_word(self) -> None:
        assert dict(words.ACTIONS) == numbers("ACTION")
        assert set(words.DIRECTIONS) == set(numbers("HOOK"))
        reasons = {number: word for number, word in numbers("DROP").items() if word != "reasons"}
        assert {number: one.word for number, one in words.REASONS.items()} == reasons

    def test_every_reason_has_a_remedy(self) -> None:
        assert all(one.sentence and one.remedy for number, one in words.REASONS.items() if number)

    def test_what_a_newer_program_tells_is_no_error(self) -> None:
        assert words.reason_of(99).word == "reason-99"
        assert words.hook_word(99) == "hook-99"
        assert words.source_line(layout.SOURCE_POD, 120) == "pod.bpf.c:120"
        assert words.source_line(9, 1) == "source-9.bpf.c:1"
        assert words.source_line(1, 0) == ""


class TestDecode:
    def test_fields(self) -> None:
        (event,), unknown = decode([DENIED])
        assert unknown == 0
        assert (event.type, event.reason, event.rule, event.suppressed) == (1, 6, 3, 5)
        assert (layout.address_text(event.source), event.source_port) == ("10.0.1.5", 40000)
        assert (layout.address_text(event.destination), event.destination_port) == ("10.0.2.9", 443)
        assert event.packet == b"\x01\x02"
        assert event.outcome == "dropped"

    def test_records_of_another_length_are_counted(self) -> None:
        events, unknown = decode([DENIED, b"short", memoryview(DENIED)])
        assert (len(events), unknown) == (2, 1)
        assert glance([DENIED, b"short", DENIED]) == (2, 10)

    def test_it_reads_what_the_header_lays_out(self) -> None:
        (event,), _ = decode([DENIED])
        record = layout.Event.unpack(DENIED)
        assert SIZE == layout.Event.SIZE
        for name in Event._fields:
            if not name.endswith("_be"):
                assert getattr(event, name) == getattr(record, name), name
        assert (record.source_port, record.destination_port) == (event.source_port, event.destination_port)


NAMES = FakeNames({"10.0.1.5": "shop/web"}, {7: ("plmveth7", "shop/web"), 8: ("plmveth8", "shop/db")})


def one(**fields: object) -> Event:
    (event,), _ = decode([event_record(**fields)])  # type: ignore[arg-type]
    return event


V4 = {"source": "10.0.1.5", "destination": "10.0.2.9", "source_port": 40000, "destination_port": 443, "protocol": "tcp"}
JUDGED = {**V4, "type": layout.EVENT_VERDICT}
V6 = {**V4, "source": "fd00::5", "destination": "fd00:1::9"}


@pytest.mark.parametrize(
    ("story", "wanted", "fields", "passes"),
    [
        ("no filter", Filter(), V4, True),
        ("the source", Filter(addresses=("10.0.1.5",)), V4, True),
        ("the destination", Filter(addresses=("10.0.2.9",)), V4, True),
        ("a range around one end", Filter(addresses=("10.0.2.0/24",)), V4, True),
        ("a range beside both", Filter(addresses=("10.0.3.0/24",)), V4, False),
        ("all of IPv4", Filter(addresses=("0.0.0.0/0",)), V4, True),
        ("all of IPv4 leaves IPv6 out", Filter(addresses=("0.0.0.0/0",)), V6, False),
        ("an IPv6 range", Filter(addresses=("fd00:1::/32",)), V6, True),
        ("one of two addresses", Filter(addresses=("10.9.9.9", "10.0.1.5")), V4, True),
        ("an address or a range", Filter(addresses=("10.9.9.9", "10.0.2.0/24")), V4, True),
        ("the destination's port", Filter(ports=(443,)), V4, True),
        ("the source's port", Filter(ports=(40000,)), V4, True),
        ("another port", Filter(ports=(80,)), V4, False),
        ("the protocol", Filter(protocols=("tcp",)), V4, True),
        ("the protocol's number", Filter(protocols=("6",)), V4, True),
        ("another protocol", Filter(protocols=("udp",)), V4, False),
        ("every field must agree", Filter(ports=(443,), protocols=("udp",)), V4, False),
        ("a drop is dropped", Filter(verdicts=("dropped",)), {**V4, "type": layout.EVENT_DROP}, True),
        ("a trace is forwarded", Filter(verdicts=("forwarded",)), {**V4, "type": layout.EVENT_TRACE}, True),
        ("a denial is dropped", Filter(verdicts=("dropped",)), {**JUDGED, "verdict": 2}, True),
        ("an audit", Filter(verdicts=("audited",)), {**JUDGED, "verdict": 3}, True),
        ("an audit is no drop", Filter(verdicts=("dropped",)), {**JUDGED, "verdict": 3}, False),
        ("the type", Filter(types=("flow-new", "drop")), {**V4, "type": layout.EVENT_DROP}, True),
        ("another type", Filter(types=("flow-new",)), {**V4, "type": layout.EVENT_DROP}, False),
        ("the hook", Filter(hooks=("to-device",)), {**V4, "hook": 3}, True),
        ("another hook", Filter(hooks=("to-device",)), {**V4, "hook": 0}, False),
        ("the pod by its address", Filter(pods=("shop/web",)), V4, True),
        ("the pod by its device, whatever it sends", Filter(pods=("shop/db",)), {**V4, "ifindex": 8}, True),
        ("another pod", Filter(pods=("shop/db",)), V4, False),
    ],
)  # fmt: skip
def test_filters(story: str, wanted: Filter, fields: dict[str, object], passes: bool) -> None:
    assert compile_filter(wanted, NAMES)(one(**fields)) is passes, story


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (Filter(pods=("web",)), "pod"),
        (Filter(addresses=("10.0.1",)), "address"),
        (Filter(addresses=("10.0.0.0/33",)), "address"),
        (Filter(ports=(0,)), "port"),
        (Filter(ports=(65536,)), "port"),
        (Filter(protocols=("tpc",)), "protocol"),
        (Filter(protocols=("256",)), "protocol"),
        (Filter(verdicts=("denied",)), "verdict"),
        (Filter(types=("step",)), "type"),
        (Filter(hooks=("from-moon",)), "hook"),
    ],
)
def test_what_cannot_be_is_named_with_its_field(wanted: Filter, field: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        compile_filter(wanted, NAMES)
    assert caught.value.field == field
    assert caught.value.remedy


def everything(event: Event) -> bool:
    return True


class TestHub:
    def test_events_reach_every_subscriber_that_wants_them(self) -> None:
        records = FakeRecords()
        hub = EventHub(records)
        with hub.subscribe(everything) as all_, hub.subscribe(compile_filter(Filter(ports=(80,)), NAMES)) as web:
            records.put(DENIED, event_record(destination_port=80, protocol="tcp"))
            assert hub.read_once() == 2
            assert len(all_.take().events) == 2
            assert [event.destination_port for event in web.take().events] == [80]
            assert web.take().events == []

    def test_a_slow_subscriber_loses_and_is_told_how_many(self) -> None:
        records = FakeRecords()
        hub = EventHub(records)
        with hub.subscribe(everything, capacity=3) as slow, hub.subscribe(everything) as fast:
            records.put(*[DENIED] * 5)
            hub.read_once()
            taken = slow.take()
            assert (len(taken.events), taken.lost) == (3, 2)
            assert slow.take().lost == 0, "told once"
            assert len(fast.take().events) == 5
            assert hub.counts().lost_by_subscribers == 2
        assert hub.counts().lost_by_subscribers == 2, "also when he has gone"

    def test_while_nobody_listens_records_are_counted(self) -> None:
        records = FakeRecords()
        records.lost = 7
        hub = EventHub(records)
        records.put(DENIED, DENIED, b"of another release")
        hub.read_once()
        counts = hub.counts()
        assert (counts.read, counts.suppressed, counts.unknown, counts.lost) == (2, 10, 1, 7)

    def test_who_has_gone_gets_nothing_and_disturbs_nobody(self) -> None:
        records = FakeRecords()
        hub = EventHub(records)
        with hub.subscribe(everything) as gone:
            pass
        records.put(DENIED)
        hub.read_once()
        assert gone.take().events == []
        assert hub.counts().subscribers == 0

    def test_a_waiter_that_has_gone_does_not_stop_the_reader(self) -> None:
        def closed() -> None:
            raise RuntimeError("Event loop is closed")

        records = FakeRecords()
        hub = EventHub(records)
        with hub.subscribe(everything, closed), hub.subscribe(everything) as other:
            records.put(DENIED)
            hub.read_once()
            assert len(other.take().events) == 1

    def test_the_thread_wakes_reads_and_ends(self) -> None:
        records = FakeRecords()
        came = threading.Event()
        with EventHub(records, gather_s=0.001) as hub, hub.subscribe(everything, came.set) as subscription:
            records.put(DENIED)
            assert came.wait(5)
            assert len(subscription.take().events) == 1
            records.fail_next = OSError("broken")
            records.put(DENIED)
        assert not any(thread.name == "events" for thread in threading.enumerate())

    def test_fifty_thousand_events_a_second_take_less_than_half_a_core(self) -> None:
        records = FakeRecords()
        hub = EventHub(records)
        wanted = Filter(addresses=("10.0.0.0/8",), ports=(443,), verdicts=("dropped",), pods=("shop/web",))
        with hub.subscribe(compile_filter(wanted, NAMES)) as filtered, hub.subscribe(everything) as all_:
            best_s = 1.0
            for _ in range(3):
                for _ in range(20):
                    records.put(*[DENIED] * 500)
                began_s = time.thread_time()
                while hub.read_once():
                    all_.take()
                    filtered.take()
                best_s = min(best_s, time.thread_time() - began_s)
        assert best_s < 0.1, f"{best_s / 10_000 * 1e6:.1f} us an event; 10 us would be half a core at 50,000 a second"


def alike(count: int, **fields: object) -> Sequence[Event]:
    return [one(**{**V4, "type": layout.EVENT_DROP, "reason": 6, "length": 100, **fields}) for _ in range(count)]


class TestAggregate:
    def test_the_first_is_told_at_once_and_the_rest_as_a_number(self) -> None:
        told = Aggregator(1.0)
        now = list(told.add(alike(500), 0.0))
        assert [line.count for line in now] == [1]
        assert list(told.add(alike(499), 0.5)) == []
        later = list(told.due(1.0))
        assert [(line.count, line.octets, line.various) for line in later] == [(998, 99_800, False)]
        assert list(told.due(2.0)) == []

    def test_who_tries_again_from_another_port_is_the_same(self) -> None:
        told = Aggregator(1.0)
        lines = list(told.add([*alike(1, source_port=1), *alike(1, source_port=2)], 0.0))
        assert len(lines) == 1

    def test_connections_are_told_one_by_one(self) -> None:
        told = Aggregator(1.0)
        new = [one(**{**V4, "type": layout.EVENT_FLOW_NEW, "source_port": port}) for port in (1, 2)]
        assert len(list(told.add(new, 0.0))) == 2

    def test_what_the_programs_left_out_is_added(self) -> None:
        told = Aggregator(1.0)
        assert [line.suppressed for line in told.add(alike(3, suppressed=4), 0.0)] == [4]
        assert [line.suppressed for line in told.due(1.0)] == [8]

    def test_a_flood_from_many_addresses_drowns_nobody(self) -> None:
        told = Aggregator(1.0, kinds=10)
        flood = [event for number in range(200) for event in alike(1, source=f"198.51.100.{number}")]
        assert len(list(told.add(flood, 0.0))) == 10
        (rest,) = told.due(1.0)
        assert (rest.count, rest.various) == (190, True)

    def test_other_reasons_are_told_apart_in_a_flood(self) -> None:
        told = Aggregator(1.0, kinds=1)
        list(told.add([*alike(5), *alike(3, reason=3), *alike(2, reason=4)], 0.0))
        assert sorted((line.event.reason, line.count) for line in told.due(1.0)) == [(3, 3), (4, 2), (6, 4)]
