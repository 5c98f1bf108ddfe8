"""Packets that are cut short, contradict themselves, or have more headers than usual."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Timestamp
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_POD,
    DROP_EXTENSION_HEADERS,
    DROP_INVALID_TCP,
    DROP_MALFORMED,
    DROP_UNSUPPORTED,
)
from tests.datapath.programs.bed import (
    HOST_MAC,
    ROUTER_MAC,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
    dropped,
    forwarded,
    untouched,
)
from tests.datapath.programs.packets import echo, ip, sctp, tcp, udp

pytestmark = pytest.mark.root


def framed(packet: Packet) -> bytes:
    return bytes(Ether(src=A.mac, dst=HOST_MAC) / packet)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", ["tcp", "udp", "sctp", "echo"])
def test_packets_cut_at_every_byte(bed: ProgramBed, family: int, transport: str) -> None:
    payload = {"tcp": tcp(1, 2), "udp": udp(1, 2), "sctp": sctp(1, 2), "echo": echo(family, 7)}[transport]
    frame = framed(ip(A.address(family), B.address(family)) / payload)
    # The kernel's test runs themselves want an Ethernet and an IP header.
    for length in range(54 if family == 6 else 34, len(frame), 2):
        dropped(bed.run("from_pod", frame[:length], device="plma"), DROP_MALFORMED)
    forwarded(bed.run("from_pod", frame, device="plma"), ACTION_POD, bed, "plmb")
    forwarded(bed.run("from_pod", frame + bytes(6), device="plma"), ACTION_POD, bed, "plmb")


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=A.address4, dst=B.address4, ihl=4) / UDP(),
        IP(src=A.address4, dst=B.address4, version=5) / UDP(),
        IP(src=A.address4, dst=B.address4, len=19) / UDP(),
        IP(src=A.address4, dst=B.address4, len=100) / UDP(),
        IP(src=A.address4, dst=B.address4, ihl=15) / UDP(),
        IP(src=A.address4, dst=B.address4) / TCP(dataofs=4, flags="S"),
        IPv6(src=A.address6, dst=B.address6, version=4) / UDP(),
        IPv6(src=A.address6, dst=B.address6, plen=100) / UDP(),
        IPv6(src="::ffff:10.8.0.1", dst=B.address6) / UDP(),
        IPv6(src=A.address6, dst="::ffff:10.8.0.2") / UDP(),
        IPv6(src=A.address6, dst="::ffff:10.8.0.2") / IPv6ExtHdrDestOpt() / UDP(),
        IPv6(src=A.address6, dst=B.address6) / TCP(dataofs=0, flags="S"),
    ],
    ids=lambda packet: packet.command()[:70],
)
def test_contradictions(bed: ProgramBed, packet: Packet) -> None:
    dropped(bed.run("from_pod", framed(packet), device="plma"), DROP_MALFORMED)


@pytest.mark.parametrize("flags", ["", "SF", "SR", "FR", "P", "SFRA", "FSPU"])
@pytest.mark.parametrize("family", [4, 6])
def test_flags_that_no_packet_has(bed: ProgramBed, flags: str, family: int) -> None:
    packet = ip(A.address(family), B.address(family)) / tcp(1, 2, flags)
    dropped(bed.from_pod(A, packet), DROP_INVALID_TCP)
    packet = ip(WORLD6 if family == 6 else WORLD4, A.address(family)) / tcp(1, 2, flags)
    dropped(bed.from_device(packet), DROP_INVALID_TCP, layout.HOOK_FROM_DEVICE)


def test_ipv4_options(bed: ProgramBed) -> None:
    options = [IPOption_NOP(), IPOption_Timestamp(), IPOption_NOP()]
    packet = IP(src=A.address4, dst=WORLD4, options=options) / udp(1000, 53)
    run = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0")
    assert run.ip[UDP].sport == bed.path(packet).nat_port
    longest = IP(src=A.address4, dst=B.address4, options=[IPOption_NOP()] * 40) / tcp(1, 2)
    assert longest.__class__(bytes(longest)).ihl == 15
    forwarded(bed.from_pod(A, longest), ACTION_POD, bed, "plmb")


EXTENSIONS = [
    IPv6ExtHdrHopByHop(),
    IPv6ExtHdrDestOpt(),
    IPv6ExtHdrRouting(segleft=0),
    IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(segleft=0) / IPv6ExtHdrDestOpt(),
    IPv6ExtHdrFragment(offset=0, m=0, id=5),
    IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(),
]


@pytest.mark.parametrize("extensions", EXTENSIONS, ids=lambda one: one.summary()[:60])
def test_extension_headers(bed: ProgramBed, extensions: Packet) -> None:
    packet = IPv6(src=A.address6, dst=WORLD6) / extensions.copy() / udp(1000, 53)
    run = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0")
    plain = IPv6(src=A.address6, dst=WORLD6) / udp(1000, 53)
    assert run.ip[UDP].sport == bed.path(plain).nat_port, "the ports are found behind them"
    answer = IPv6(src=WORLD6, dst=run.ip.src) / extensions.copy() / udp(53, run.ip[UDP].sport)
    back = forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", layout.HOOK_FROM_DEVICE)
    assert (back.ip.dst, back.ip[UDP].dport) == (A.address6, 1000)


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        (IPv6ExtHdrRouting(addresses=["fd00::1"], segleft=1), DROP_UNSUPPORTED),
        (IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=["fd00::1"], segleft=1), DROP_UNSUPPORTED),
        (Raw(struct.pack("!BB6x", 60, 0) * 6 + struct.pack("!BB6x", 17, 0)), DROP_EXTENSION_HEADERS),
        (Raw(struct.pack("!BB6x", 60, 0) * 9), DROP_EXTENSION_HEADERS),
        (Raw(struct.pack("!BB", 17, 40) + bytes(326)), DROP_EXTENSION_HEADERS),
        (Raw(struct.pack("!BB", 17, 4) + bytes(6)), DROP_MALFORMED),
        (Raw(b"\x11"), DROP_MALFORMED),
    ],
)
def test_extension_headers_that_are_refused(bed: ProgramBed, extensions: Packet, reason: int) -> None:
    number = 60 if isinstance(extensions, Raw) else type(IPv6() / extensions)(bytes(IPv6() / extensions)).nh
    packet = IPv6(src=A.address6, dst=B.address6, nh=number) / extensions.copy()
    packet = packet / (bytes(udp(1000, 53)) if reason != DROP_MALFORMED else b"")
    dropped(bed.from_pod(A, packet), reason)


def test_protocols_that_belong_to_the_other_family_or_to_none(bed: ProgramBed) -> None:
    dropped(bed.from_pod(A, IPv6(src=A.address6, dst=B.address6, nh=59)), DROP_UNSUPPORTED)
    dropped(bed.from_pod(A, IPv6(src=A.address6, dst=B.address6, nh=1) / Raw(bytes(ICMP()))), DROP_UNSUPPORTED)
    dropped(bed.from_pod(A, IP(src=A.address4, dst=B.address4, proto=58) / Raw(bytes(8))), DROP_UNSUPPORTED)
    for kind in (4, 5, 9, 10, 30, 40, 200):
        dropped(bed.from_pod(A, IP(src=A.address4, dst=B.address4) / ICMP(type=kind)), DROP_UNSUPPORTED)
    for kind in (0, 5, 127, 138, 142, 200):
        packet = IPv6(src=A.address6, dst=B.address6, nh=58) / Raw(struct.pack("!BBHI", kind, 0, 0, 0))
        dropped(bed.from_pod(A, packet), DROP_UNSUPPORTED)


@pytest.mark.parametrize("protocol", [4, 41, 47, 50, 51, 89, 253])
@pytest.mark.parametrize("family", [4, 6])
def test_protocols_without_ports_go_by_their_addresses(bed: ProgramBed, protocol: int, family: int) -> None:
    field = {"nh": protocol} if family == 6 else {"proto": protocol}
    packet = ip(A.address(family), B.address(family), **field) / Raw(b"0123456789")
    assert bed.from_pod(A, packet).verdict == "redirect"
    key = bed.flow_key(ip(A.address(family), B.address(family), **field))
    assert (key.protocol, key.low_port, key.high_port) == (protocol, 0, 0)
    assert bed.maps["flows"].lookup(key.pack()) is not None


def test_what_a_device_brings_and_cannot_be_read_is_left_to_the_node(bed: ProgramBed) -> None:
    for frame in (
        Ether(src=ROUTER_MAC, dst=HOST_MAC, type=0x88CC) / bytes(60),
        Ether(src=ROUTER_MAC, dst=HOST_MAC, type=0x0806) / bytes(28),
        Ether(src=ROUTER_MAC, dst=HOST_MAC) / (IP(src=WORLD4, dst=A.address4, ihl=4) / UDP()),
    ):
        for program in ("from_device", "to_device"):
            untouched(bed.run(program, frame, device="ens0"), bytes(frame))
