"""Headers at the limits of what is read: cut, tagged, long, rare."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, in6_chksum
from scapy.packet import Packet, Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_POD,
    DROP_CONTROL,
    DROP_EXTENSION_HEADERS,
    DROP_FRAGMENT_UNKNOWN,
    DROP_MALFORMED,
    DROP_MTU,
    DROP_REWRITE,
    DROP_TTL,
    DROP_UNSUPPORTED,
    HOOK_FROM_DEVICE,
    HOOK_TO_DEVICE,
    HOOK_TO_POD,
)
from datapath.loader import objects
from tests.datapath.compiled import compiled
from tests.datapath.programs.bed import (
    HOST_MAC,
    NODE6,
    REMOTE4,
    REMOTE6,
    SMALL4,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
    Run,
    dropped,
    forwarded,
    passed,
    untouched,
)
from tests.datapath.programs.packets import echo, ip, tcp, udp, unreachable

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])
Shaped = Callable[..., Run]


@pytest.fixture(scope="module")
def shaping(loaded: ProgramBed) -> Iterator[objects.Loaded]:
    with objects.load(compiled("shaped"), pins=None) as one:
        one.maps["next"].update(bytes(4), struct.pack("=I", loaded.programs["from_pod"].fd))
        loaded.programs["shape"] = one.programs["shape"]
        yield one
        del loaded.programs["shape"]


@pytest.fixture
def shaped(bed: ProgramBed, shaping: objects.Loaded) -> Shaped:
    """A pod's packet, with a tag, or cut to a length."""

    def run(packet: Packet, *, length: int = 0, tag: int = 0) -> Run:
        shaping.maps["shapes"].update(bytes(4), struct.pack("=II", length, tag))
        frame = struct.pack("!6s6sH", layout.mac_bytes(HOST_MAC), layout.mac_bytes(A.mac), packet_type(packet))
        return bed.run("shape", frame + bytes(packet), device="plma")

    return run


def packet_type(packet: Packet) -> int:
    return 0x86DD if isinstance(packet, IPv6) else 0x0800


@FAMILIES
def test_frames_that_end_before_their_ip_header_does(bed: ProgramBed, shaped: Shaped, family: int) -> None:
    packet = ip(A.address(family), B.address(family)) / udp(1000, 53)
    for length in range(15, 54 if family == 6 else 34):
        assert shaped(packet, length=length).reason == DROP_MALFORMED
    forwarded(shaped(packet), ACTION_POD, bed, "plmb")


@FAMILIES
def test_a_tag_that_the_kernel_has_taken_out(shaped: Shaped, family: int) -> None:
    assert shaped(ip(A.address(family), B.address(family)) / udp(1000, 53), tag=5).reason == DROP_UNSUPPORTED


@FAMILIES
def test_icmp_without_its_head(bed: ProgramBed, family: int) -> None:
    field = {"nh": 58} if family == 6 else {"proto": 1}
    kind = b"\x80\0\0\0" if family == 6 else b"\x08\0\0\0"
    dropped(bed.from_pod(A, ip(A.address(family), B.address(family), **field) / Raw(kind)), DROP_MALFORMED)


@pytest.mark.parametrize("kind", [13, 15, 17], ids=["timestamp", "information", "mask"])
def test_icmp_questions_but_echo(bed: ProgramBed, kind: int) -> None:
    asked = ip(A.address4, B.address4) / ICMP(type=kind, id=7, seq=1)
    answer = ip(B.address4, A.address4) / ICMP(type=kind + 1, id=7, seq=1)
    forwarded(bed.from_pod(A, asked), ACTION_POD, bed, "plmb")
    forwarded(bed.from_pod(B, answer), ACTION_POD, bed, "plma")
    flow = bed.flow(asked)
    assert flow is not None
    assert flow.state == layout.FLOW_OPEN, "one flow"
    run = forwarded(bed.from_pod(A, ip(A.address4, WORLD4) / ICMP(type=kind, id=7)), ACTION_DEVICE, bed, "ens0")
    assert run.ip[ICMP].id != 7


def test_a_problem_with_a_parameter(bed: ProgramBed) -> None:
    sent = ip(A.address4, B.address4) / udp(1000, 53)
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    error = ip(B.address4, A.address4) / ICMP(type=12) / Raw(bytes(sent))
    forwarded(bed.from_pod(B, error), ACTION_POD, bed, "plma")


# ---- UDP-Lite ----


def udplite(family: int, source: str, destination: str, ports: tuple[int, int], data: bytes = b"12345678") -> Packet:
    head = struct.pack("!HHHH", *ports, 0, 0) + data
    packet: IP | IPv6
    if family == 6:
        packet = IPv6(src=source, dst=destination, nh=136)
        total = in6_chksum(136, packet, head)
    else:
        packet = IP(src=source, dst=destination, proto=136)
        pseudo = packet.__class__(bytes(packet))
        total = checksum(
            layout.address_bytes(pseudo.src)[12:] + layout.address_bytes(pseudo.dst)[12:]
            + struct.pack("!HH", 136, len(head)) + head
        )  # fmt: skip
    return packet / Raw(head[:6] + struct.pack("!H", total) + data)


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@FAMILIES
def test_udplite_is_masqueraded_like_udp(bed: ProgramBed, family: int) -> None:
    world = WORLD6 if family == 6 else WORLD4
    run = bed.from_pod(A, udplite(family, A.address(family), world, (1000, 53)))
    assert run.verdict == "redirect"
    source, destination = struct.unpack("!HH", bytes(run.ip.payload)[:4])
    assert (source != 1000, destination) == (True, 53)
    assert bytes(run.ip.payload) == bytes(udplite(family, run.ip.src, world, (source, 53)).payload)
    back = bed.from_device(udplite(family, world, run.ip.src, (53, source)))
    assert (back.verdict, back.ip.dst) == ("redirect", A.address(family))
    assert bytes(back.ip.payload) == bytes(udplite(family, world, A.address(family), (53, 1000)).payload)


# ---- options and fragments ----


def test_options_of_a_packet_that_may_not_be_cut(bed: ProgramBed) -> None:
    """Nobody is told: no error is sent about what has options."""
    packet = IP(src=A.address4, dst=SMALL4, flags="DF", options=[IPOption_NOP()] * 4) / tcp(1, 2, "A", bytes(1300))
    dropped(bed.from_pod(A, packet), DROP_MTU)


def test_a_fragment_that_is_shorter_than_it_says(bed: ProgramBed) -> None:
    dropped(bed.from_pod(A, IP(src=A.address4, dst=B.address4, flags="MF", len=100) / UDP()), DROP_MALFORMED)
    options = IP(src=A.address4, dst=B.address4, options=[IPOption_NOP()] * 4, len=100) / UDP()
    dropped(bed.from_pod(A, options), DROP_MALFORMED)


def first_and_later(source: str, destination: str, payload: Packet) -> tuple[Packet, Packet]:
    """A segment in two."""
    whole = ip(source, destination) / payload
    data = bytes(whole.__class__(bytes(whole)).payload)
    if ":" in source:
        head = IPv6(src=source, dst=destination)
        kind = whole.__class__(bytes(whole)).nh
        return (
            head / IPv6ExtHdrFragment(nh=kind, id=5, m=1) / Raw(data[:24]),
            head / IPv6ExtHdrFragment(nh=kind, id=5, offset=3) / Raw(data[24:]),
        )
    more = {"src": source, "dst": destination, "id": 5, "proto": whole.__class__(bytes(whole)).proto}
    return IP(flags="MF", **more) / Raw(data[:24]), IP(frag=3, **more) / Raw(data[24:])


@FAMILIES
def test_a_later_fragment_has_no_flags_to_be_wrong(bed: ProgramBed, family: int) -> None:
    for one in first_and_later(A.address(family), B.address(family), tcp(1000, 80, "S", bytes(16))):
        forwarded(bed.from_pod(A, one), ACTION_POD, bed, "plmb")
    bed.maps["flows"].clear()
    for one in reversed(first_and_later(A.address(family), B.address(family), tcp(1000, 80, "S", bytes(16)))):
        forwarded(bed.from_pod(A, one), ACTION_POD, bed, "plmb")
    remote = REMOTE6 if family == 6 else REMOTE4
    first, later = first_and_later(remote, A.address(family), tcp(1000, 80, "S", bytes(16)))
    forwarded(bed.from_device(first), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    bed.maps["flows"].clear()
    forwarded(bed.from_device(later), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)


@FAMILIES
def test_fragments_by_the_stack_to_a_pod(bed: ProgramBed, family: int) -> None:
    first, later = first_and_later(B.address(family), A.address(family), udp(1000, 53, bytes(32)))
    dropped(bed.to_pod(A, later), DROP_FRAGMENT_UNKNOWN, HOOK_TO_POD)
    for one in (first, later):
        passed(bed.to_pod(A, one), HOOK_TO_POD)


@FAMILIES
def test_a_fragment_that_is_neither_known_nor_for_a_pod(bed: ProgramBed, family: int) -> None:
    remote, world = (REMOTE6, WORLD6) if family == 6 else (REMOTE4, WORLD4)
    _, later = first_and_later(remote, world, udp(1000, 53, bytes(32)))
    untouched(bed.from_device(later))


# ---- IPv6 with long chains ----


def behind(headers: int, following: int, packet: Packet) -> Packet:
    """Puts a destination header of so many bytes before what follows."""
    head = packet.copy()
    rest = bytes(head.payload)
    head.remove_payload()
    head.nh = 60
    return head / Raw(struct.pack("!BB", following, headers // 8 - 1) + bytes(headers - 2) + rest)


def test_a_fragment_header_at_the_very_end_of_what_is_read(bed: ProgramBed) -> None:
    whole = IPv6(src=A.address6, dst=B.address6) / IPv6ExtHdrFragment(nh=17, id=5) / udp(1000, 53)
    forwarded(bed.from_pod(A, behind(256, 44, whole)), ACTION_POD, bed, "plmb")
    dropped(bed.from_pod(A, behind(264, 44, whole)), DROP_EXTENSION_HEADERS)


def test_a_later_fragment_whose_headers_are_longer_than_the_firsts(bed: ProgramBed) -> None:
    """Too far behind to be masqueraded: it must not leave with the pod's address."""
    first, later = first_and_later(A.address6, WORLD6, udp(1000, 53, bytes(32)))
    run = forwarded(bed.from_pod(A, first), ACTION_DEVICE, bed, "ens0")
    port = struct.unpack("!H", bytes(run.ip[IPv6ExtHdrFragment].payload)[:2])[0]
    dropped(bed.from_pod(A, behind(264, 44, later)), DROP_REWRITE)
    dropped(bed.to_device(behind(264, 44, later)), DROP_REWRITE, HOOK_TO_DEVICE)
    first, later = first_and_later(WORLD6, NODE6, udp(53, port, bytes(32)))
    forwarded(bed.from_device(first), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    dropped(bed.from_device(behind(264, 44, later)), DROP_REWRITE, HOOK_FROM_DEVICE)


def test_errors_with_long_chains(bed: ProgramBed) -> None:
    sent = IPv6(src=A.address6, dst=B.address6) / udp(1000, 53)
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    error = IPv6(src=B.address6, dst=A.address6) / unreachable(sent, 6)
    forwarded(bed.from_pod(B, behind(192, 58, error)), ACTION_POD, bed, "plma")
    dropped(bed.from_pod(B, behind(200, 58, error)), DROP_MALFORMED)
    quoted = IPv6(src=A.address6, dst=B.address6) / IPv6ExtHdrFragment(nh=17, id=5, m=1) / udp(1000, 53)
    forwarded(
        bed.from_pod(B, IPv6(src=B.address6, dst=A.address6) / unreachable(behind(208, 44, quoted), 6)), ACTION_POD,
        bed, "plma",
    )  # fmt: skip
    error = IPv6(src=B.address6, dst=A.address6) / unreachable(behind(216, 44, quoted), 6)
    dropped(bed.from_pod(B, error), DROP_EXTENSION_HEADERS)


def test_the_quote_of_an_ipv6_fragment(bed: ProgramBed) -> None:
    sent = IPv6(src=A.address6, dst=B.address6) / udp(1000, 53, bytes(32))
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    first, later = first_and_later(A.address6, B.address6, udp(1000, 53, bytes(32)))
    error = IPv6(src=B.address6, dst=A.address6) / unreachable(first, 6)
    forwarded(bed.from_pod(B, error), ACTION_POD, bed, "plma")
    dropped(bed.from_pod(B, IPv6(src=B.address6, dst=A.address6) / unreachable(later, 6)), DROP_MALFORMED)


@FAMILIES
def test_a_quote_that_ends_within_the_ports(bed: ProgramBed, family: int) -> None:
    sent = ip(A.address(family), B.address(family)) / tcp(1000, 80)
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    head = 40 if family == 6 else 20
    for kept, reason in ((head + 3, DROP_MALFORMED), (head + 4, 0)):
        run = bed.from_pod(B, ip(B.address(family), A.address(family)) / unreachable(bytes(sent)[:kept], family))
        assert run.reason == reason


def test_hops_used_up_of_a_packet_too_short_to_be_quoted(bed: ProgramBed) -> None:
    packet = IPv6(src=A.address6, dst=B.address6, nh=47, hlim=1) / Raw(b"1234")
    dropped(bed.from_pod(A, packet), DROP_TTL)


def test_ipv6_addresses_that_begin_like_mapped_ones(bed: ProgramBed) -> None:
    packet = IPv6(src=A.address6, dst="::5") / udp(1000, 53)
    assert bed.from_pod(A, packet).ip.dst == "::5"
    assert bed.flow(packet) is not None


def test_solicitations_that_are_none(bed: ProgramBed) -> None:
    asked = IPv6(src=A.address6, dst="ff02::1", hlim=255)
    dropped(bed.from_pod(A, asked / IPv6ExtHdrHopByHop() / ICMPv6ND_NS(tgt="fe80::1")), DROP_CONTROL)
    cut = bytes(ICMPv6ND_NS(tgt="fe80::1"))[:16]
    dropped(bed.from_pod(A, IPv6(src=A.address6, dst="ff02::1", hlim=255, nh=58) / Raw(cut)), DROP_MALFORMED)


@FAMILIES
def test_a_pod_talks_with_itself(bed: ProgramBed, family: int) -> None:
    """Two ends of one address: the port tells which is which."""
    for ports in ((1000, 53), (53, 1000)):
        run = bed.from_pod(A, ip(A.address(family), A.address(family)) / udp(*ports))
        forwarded(run, ACTION_POD, bed, "plma")
    assert len(bed.maps["flows"]) == 1
    forwarded(bed.from_pod(A, ip(A.address(family), A.address(family)) / echo(family, 7)), ACTION_POD, bed, "plma")
