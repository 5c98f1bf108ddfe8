"""Fragments: the first has ports, the others are known by the datagram's number."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_POD,
    DROP_FRAGMENT_UNKNOWN,
    DROP_MALFORMED,
    DROP_POLICY_EGRESS,
    HOOK_FROM_DEVICE,
    HOOK_TO_DEVICE,
    HOOK_TO_POD,
)
from datapath.policy.model import Direction, EndpointPolicy, Enforcement, Rule, Verdict
from tests.datapath.programs.bed import (
    NODE4,
    NODE6,
    REMOTE4,
    REMOTE6,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
    dropped,
    forwarded,
    passed,
    untouched,
)
from tests.datapath.programs.packets import assert_right, echo, ip, udp

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def pieces(source: str, destination: str, payload: Packet, number: int = 77) -> list[Packet]:
    """The datagram in three."""
    whole = ip(source, destination) / payload
    data = bytes(whole.__class__(bytes(whole)).payload)
    made: list[Packet] = []
    for start, end in ((0, 16), (16, 24), (24, len(data))):
        more = end < len(data)
        header: Packet
        if ":" in source:
            header = IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(
                nh=whole.__class__(bytes(whole)).nh, id=number, offset=start // 8, m=int(more)
            )
        else:
            header = IP(
                src=source, dst=destination, id=number, proto=whole.__class__(bytes(whole)).proto, frag=start // 8,
                flags="MF" if more else 0,
            )  # fmt: skip
        made.append(header / Raw(data[start:end]))
    return made


def joined(packets: list[Packet]) -> Packet:
    """As a receiver puts them together: its checksum has to be right."""
    first = packets[0]
    if isinstance(first, IPv6):
        data = b"".join(bytes(one[IPv6ExtHdrFragment].payload) for one in packets)
        return IPv6(bytes(IPv6(src=first.src, dst=first.dst, nh=first[IPv6ExtHdrFragment].nh) / Raw(data)))
    data = b"".join(bytes(one.payload) for one in packets)
    return IP(bytes(IP(src=first.src, dst=first.dst, proto=first.proto) / Raw(data)))


@FAMILIES
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
def test_between_pods(bed: ProgramBed, family: int, order: tuple[int, ...]) -> None:
    fragments = pieces(A.address(family), B.address(family), udp(1000, 53, bytes(40)))
    for number in order:
        forwarded(bed.from_pod(A, fragments[number]), ACTION_POD, bed, "plmb")
    assert bed.path(ip(A.address(family), B.address(family)) / udp(1000, 53)).packets == 3, "all are of one flow"


@FAMILIES
def test_the_first_comes_late(bed: ProgramBed, family: int) -> None:
    fragments = pieces(A.address(family), B.address(family), udp(1000, 53, bytes(40)))
    dropped(bed.from_pod(A, fragments[1]), DROP_FRAGMENT_UNKNOWN)
    dropped(bed.to_pod(A, fragments[1]), DROP_FRAGMENT_UNKNOWN, HOOK_TO_POD)
    for number in (0, 1, 2):
        forwarded(bed.from_pod(A, fragments[number]), ACTION_POD, bed, "plmb")
    other = pieces(A.address(family), B.address(family), udp(1000, 53, bytes(40)), number=78)
    dropped(bed.from_pod(A, other[1]), DROP_FRAGMENT_UNKNOWN)


def test_the_number_is_forgotten_after_a_while(bed: ProgramBed) -> None:
    fragments = pieces(A.address4, B.address4, udp(1000, 53, bytes(40)))
    forwarded(bed.from_pod(A, fragments[0]), ACTION_POD, bed, "plmb")
    [(key, entry)] = bed.fragments().items()
    assert (key.id >> 16, key.protocol, entry.source_port, entry.destination_port) == (77, 17, 1000, 53)
    old = (bed.clock.now_j() - bed.config.fragment_j) & 0xFFFFFFFF
    bed.maps["fragments"].update(key.pack(), layout.Fragment(1000, 53, old).pack())
    dropped(bed.from_pod(A, fragments[1]), DROP_FRAGMENT_UNKNOWN)


@FAMILIES
def test_masqueraded(bed: ProgramBed, family: int) -> None:
    """Only the first has a checksum; the datagram put together has to be right."""
    world, node = (WORLD6, NODE6) if family == 6 else (WORLD4, NODE4)
    for payload in (udp(1000, 53, bytes(range(40))), echo(family, 9, bytes(range(40)))):
        out = [
            forwarded(bed.from_pod(A, one), ACTION_DEVICE, bed, "ens0").ip
            for one in pieces(A.address(family), world, payload)
        ]
        assert {one.src for one in out} == {node}
        assert_right(joined(out))
    port = next(key.destination_port for key in bed.nat() if key.direction == layout.NAT_IN and key.protocol == 17)
    back = [
        forwarded(bed.from_device(one), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE).ip
        for one in pieces(world, node, udp(53, port, bytes(range(40))))
    ]
    whole = joined(back)
    assert_right(whole)
    assert (whole.dst, whole[UDP].dport) == (A.address(family), 1000)


@FAMILIES
def test_masqueraded_behind_the_stack(bed: ProgramBed, family: int) -> None:
    world, node = (WORLD6, NODE6) if family == 6 else (WORLD4, NODE4)
    fragments = pieces(A.address(family), world, udp(1000, 53, bytes(range(40))))
    dropped(bed.to_device(fragments[2]), DROP_FRAGMENT_UNKNOWN, HOOK_TO_DEVICE)
    out = [passed(bed.to_device(one), HOOK_TO_DEVICE).ip for one in fragments]
    assert {one.src for one in out} == {node}
    assert_right(joined(out))


@FAMILIES
def test_from_outside(bed: ProgramBed, family: int) -> None:
    remote = REMOTE6 if family == 6 else REMOTE4
    fragments = pieces(remote, A.address(family), udp(53, 1000, bytes(40)))
    dropped(bed.from_device(fragments[1]), DROP_FRAGMENT_UNKNOWN, HOOK_FROM_DEVICE)
    for one in fragments:
        forwarded(bed.from_device(one), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    for_node = pieces(remote, NODE6 if family == 6 else NODE4, udp(53, 22, bytes(40)))
    untouched(bed.from_device(for_node[1]))


@FAMILIES
def test_policy_holds_for_all_of_them(bed: ProgramBed, family: int) -> None:
    bed.set_policy(
        A,
        EndpointPolicy(frozenset({Rule(1, Direction.EGRESS, Verdict.ALLOW, 0, 17, 53, 53)}), Enforcement(egress=True)),
    )
    for one in pieces(A.address(family), B.address(family), udp(1000, 53, bytes(40))):
        forwarded(bed.from_pod(A, one), ACTION_POD, bed, "plmb")
    for one in pieces(A.address(family), B.address(family), udp(1000, 54, bytes(40)), number=79):
        dropped(bed.from_pod(A, one), DROP_POLICY_EGRESS)


def test_a_first_fragment_too_small_for_its_ports(bed: ProgramBed) -> None:
    """RFC 1858: they would come with the second, unseen."""
    dropped(bed.from_pod(A, IP(src=A.address4, dst=B.address4, proto=6, flags="MF") / Raw(bytes(8))), DROP_MALFORMED)
    small = IPv6(src=A.address6, dst=B.address6) / IPv6ExtHdrFragment(nh=6, m=1) / Raw(bytes(16))
    dropped(bed.from_pod(A, small), DROP_MALFORMED)


def test_headers_before_the_fragments(bed: ProgramBed) -> None:
    packet = IPv6(bytes(IPv6(src=A.address6, dst=B.address6) / udp(1000, 53, bytes(32))))
    data = bytes(packet.payload)
    for start, more in ((0, 1), (16, 0)):
        one = IPv6(src=A.address6, dst=B.address6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(
            nh=17, id=5, offset=start // 8, m=more
        ) / Raw(data[start : start + 16] if more else data[start:])  # fmt: skip
        forwarded(bed.from_pod(A, one), ACTION_POD, bed, "plmb")
