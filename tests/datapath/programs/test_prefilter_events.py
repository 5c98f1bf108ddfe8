"""bpf/xdp.bpf.c by single frames: which pass, and what is told of those that it drops.

One load serves all of them; tests/datapath/test_prefilter.py has the daemon's side and real packets."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from datapath.layout import DROP_PREFILTER, HOOK_XDP, Event, Runtime
from datapath.loader.maps import CPUS, Map
from datapath.loader.ringbuf import RingReader
from datapath.prefilter.prefilter import Prefilter
from tests.datapath.compiled import bpf_folder, build_programs

pytestmark = pytest.mark.root

DROP, PASS = 1, 2
MAC = "02:00:00:00:00:01"
# Named, or scapy asks the network for the destination's, and waits for a second.
LINK = Ether(src=MAC, dst=MAC)
DENIED4, DENIED6 = "203.0.113.7", "2001:db8:1::7"
RING_BYTES = 1 << 14


class Told:
    """The prefilter with both addresses denied, and its events."""

    def __init__(self, folder: Path, prefilter: Prefilter) -> None:
        self.prefilter, self.folder = prefilter, folder
        self.allow_events(1 << 20)
        prefilter.add([DENIED4, DENIED6])

    def allow_events(self, per_tick: int) -> None:
        with Map.pinned(self.folder / "maps" / "runtime") as runtime:
            runtime.update(bytes(4), Runtime(generation=1, drop_events_per_tick=per_tick).pack())

    def run(self, frame: bytes, repeat: int = 1) -> int:
        done = self.prefilter._loaded.programs["prefilter"].test_run(frame, repeat=repeat)
        assert done.packet[: len(frame)] == frame
        return done.retval

    def dropped(self, frame: bytes, repeat: int = 1) -> list[Event]:
        self._read()
        assert self.run(frame, repeat) == DROP
        events = self._read()
        assert {(event.hook, event.reason) for event in events} == {(HOOK_XDP, DROP_PREFILTER)}
        return events

    def _read(self) -> list[Event]:
        with Map.pinned(self.folder / "maps" / "events") as ring:
            reader = RingReader(ring)
            events = [Event.unpack(data) for data in reader.read()]
            reader.close()
        return events

    def lost(self) -> int:
        with Map.pinned(self.folder / "maps" / "lost_events") as lost:
            return sum(struct.unpack(f"={CPUS}Q", lost.lookup(bytes(4)) or b""))


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    sizes = {"events": RING_BYTES, "flows": 1024, "nat": 1024, "addresses": 1024}
    path = build_programs() / "xdp.bpf.o"
    with bpf_folder() as folder, Prefilter.opened(folder, lambda: (), object_path=path, sizes=sizes) as prefilter:
        yield Told(folder, prefilter)


def from_denied(family: int, payload: Packet, **more: object) -> bytes:
    head = IPv6(src=DENIED6, dst="2001:db8::1") if family == 6 else IP(src=DENIED4, dst="192.0.2.1")
    for name, value in more.items():
        setattr(head, name, value)
    return bytes(LINK / head / payload)


TAG, SERVICE_TAG = b"\x81\x00\x00\x05", b"\x88\xa8\x00\x05"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("tags", "verdict"),
    [
        (b"", DROP),
        (TAG, DROP),
        (SERVICE_TAG, DROP),
        (SERVICE_TAG + TAG, DROP),
        (TAG + TAG, DROP),
        (TAG * 3, PASS),
    ],
)
def test_behind_tags(told: Told, family: int, tags: bytes, verdict: int) -> None:
    """As many are read as there are ways to give them."""
    frame = from_denied(family, UDP())
    tagged = frame[:12] + tags + frame[12:]
    assert told.run(tagged) == verdict
    header_end = 14 + len(tags) + (40 if family == 6 else 20)
    if verdict == DROP:
        for length in range(14, header_end):
            assert told.run(tagged[:length]) == PASS, "its source is not there"
        assert told.run(tagged[:header_end]) == DROP


@pytest.mark.parametrize(
    "frame",
    [
        bytes(Ether(src=MAC, dst=MAC, type=0x0806)) + bytes(46),
        bytes(Ether(src=MAC, dst=MAC, type=0x0800)) + b"\x65" + bytes(59),
        bytes(Ether(src=MAC, dst=MAC, type=0x86DD)) + b"\x45" + bytes(59),
        bytes(LINK / IP(src="203.0.113.8") / UDP()),
        bytes(LINK / IPv6(src="2001:db8:1::8") / UDP()),
        bytes(LINK / IP(src="192.0.2.9", dst=DENIED4) / UDP()),
    ],
)
def test_what_is_not_denied_passes(told: Told, frame: bytes) -> None:
    assert told.run(frame) == PASS


def test_a_later_fragment_has_no_ports(told: Told) -> None:
    [event] = told.dropped(from_denied(4, Raw(bytes(20)), proto=6, frag=100))
    assert (event.source_port, event.destination_port) == (0, 0)


def test_look_ups_that_can_find_nothing_are_left_out(told: Told) -> None:
    """Single addresses and ranges, none, one kind or both, in each family."""
    frames = {
        "198.51.100.0/24": bytes(LINK / IP(src="198.51.100.1") / UDP()),
        DENIED4: from_denied(4, UDP()),
        "2001:db8:bad::/48": bytes(LINK / IPv6(src="2001:db8:bad::1") / UDP()),
        DENIED6: from_denied(6, UDP()),
    }
    there = {DENIED4, DENIED6}

    def check() -> None:
        assert {rule for rule, frame in frames.items() if told.run(frame) == DROP} == there

    try:
        for rule in ("198.51.100.0/24", "2001:db8:bad::/48"):
            told.prefilter.add([rule])
            there.add(rule)
            check()
        for rule in frames:
            told.prefilter.delete([rule])
            there.discard(rule)
            check()
    finally:
        told.prefilter.add([DENIED4, DENIED6])
    told.dropped(frames[DENIED4])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17, 132, 136, 1, 47])
def test_ports_of_protocols_that_have_some(told: Told, family: int, protocol: int) -> None:
    payload = Raw(struct.pack("!HH", 1234, 443) + bytes(20))
    frame = from_denied(family, payload, **({"nh": protocol} if family == 6 else {"proto": protocol}))
    [event] = told.dropped(frame)
    ports = (1234, 443) if protocol in (6, 17, 132, 136) else (0, 0)
    assert (event.protocol, event.source_port, event.destination_port) == (protocol, *ports)


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (from_denied(4, UDP() / Raw(bytes(10))), 52),
        (from_denied(4, UDP() / Raw(bytes(54))), 96),
        (from_denied(4, UDP() / Raw(bytes(55))), 97),
        (from_denied(6, TCP() / Raw(bytes(1400))), 1474),
    ],
)
def test_the_head_of_the_frame_is_told(told: Told, frame: bytes, size: int) -> None:
    [event] = told.dropped(frame)
    assert (event.length, event.data_length) == (size, min(size, 96))
    assert event.data[: event.data_length] == frame[:96]


def test_a_frame_that_ends_before_its_ports(told: Told) -> None:
    frame = from_denied(4, TCP())
    for length in range(34, 38):
        [event] = told.dropped(frame[:length])
        assert (event.source_port, event.destination_port, event.data_length) == (0, 0, length)


def test_a_frame_in_many_buffers(told: Told) -> None:
    """Its length is more than an event can tell."""
    [event] = told.dropped(from_denied(4, UDP(), len=1000) + bytes(66000))
    assert event.length == 0xFFFF


def test_what_is_not_told_is_counted_with_the_next(told: Told) -> None:
    frame = from_denied(4, UDP())
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # each CPU counts by itself
    try:
        told.dropped(frame)
        told.allow_events(0)
        assert [told.run(frame) for _ in range(3)] == [DROP] * 3
        told.allow_events(1 << 20)
        [event] = told.dropped(frame)
    finally:
        told.allow_events(1 << 20)
        os.sched_setaffinity(0, cpus)
    assert event.suppressed == 3


def test_a_ring_that_nobody_reads(told: Told) -> None:
    before = told.lost()
    events = told.dropped(from_denied(4, ICMP()), repeat=1000)
    missing = told.lost() - before
    assert (missing > 0, missing + len(events)) == (True, 1000)
