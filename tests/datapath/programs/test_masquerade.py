"""Pods' packets leave with the node's address, and answers find back."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_NEIGHBOUR,
    ACTION_POD,
    DROP_NAT_NO_ADDRESS,
    DROP_NAT_NO_PORT,
    DROP_NO_ENDPOINT,
    DROP_TTL,
    HOOK_FROM_DEVICE,
    HOOK_TO_DEVICE,
)
from datapath.policy.model import EndpointPolicy, Enforcement
from tests.datapath.programs.bed import (
    CLUSTER4,
    CLUSTER6,
    NODE4,
    NODE6,
    OTHER_NODE4,
    PORTS,
    REMOTE4,
    REMOTE6,
    SERVICE4,
    WORLD4,
    WORLD6,
    A,
    B,
    Pod,
    ProgramBed,
    Run,
    dropped,
    forwarded,
    passed,
    untouched,
)
from tests.datapath.programs.packets import assert_right, echo, echo_reply, ip, quoted, sctp, tcp, udp

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def world(family: int) -> str:
    return WORLD6 if family == 6 else WORLD4


def node(family: int) -> str:
    return NODE6 if family == 6 else NODE4


def leaves(bed: ProgramBed, pod: Pod, family: int, payload: Packet, *, unsummed: bool = False) -> Run:
    run = bed.from_pod(pod, ip(pod.address(family), world(family)) / payload)
    return forwarded(run, ACTION_DEVICE, bed, "ens0", unsummed=unsummed)


@FAMILIES
@pytest.mark.parametrize("kind", [TCP, UDP])
def test_there_and_back(bed: ProgramBed, family: int, kind: type[Packet]) -> None:
    make = tcp if kind is TCP else udp
    run = leaves(bed, A, family, make(1000, 443))
    port = run.ip[kind].sport
    assert (run.ip.src, run.ip.dst, run.ip[kind].dport) == (node(family), world(family), 443)
    assert PORTS[0] <= port <= PORTS[1]
    assert run.mark == layout.mark_of(A.identity, layout.MARK_DONE)
    answer = ip(world(family), node(family)) / make(443, port, *(("SA",) if kind is TCP else ()))
    back = forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert (back.ip.src, back.ip.dst) == (world(family), A.address(family))
    assert (back.ip[kind].sport, back.ip[kind].dport) == (443, 1000)
    assert (back.packet.src, back.packet.dst) == ("0e:50:4c:4d:00:01", A.mac)
    for _ in range(3):
        again = leaves(bed, A, family, make(1000, 443, *(("A",) if kind is TCP else ())))
        assert again.ip[kind].sport == port
        forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    flow = bed.flow(ip(A.address(family), world(family)) / make(1000, 443))
    assert flow is not None
    assert flow.flags & layout.FLOW_NAT


@FAMILIES
def test_udp_without_a_checksum_gets_none(bed: ProgramBed, family: int) -> None:
    run = leaves(bed, A, family, udp(1000, 53, chksum=0), unsummed=True)
    answer = ip(world(family), node(family)) / udp(53, run.ip[UDP].sport, chksum=0)
    back = bed.from_device(answer)
    forwarded(back, ACTION_POD, bed, "plma", HOOK_FROM_DEVICE, unsummed=True)
    assert back.ip[UDP].dport == 1000


@FAMILIES
def test_a_checksum_that_comes_out_as_zero_is_not_none(bed: ProgramBed, family: int) -> None:
    """Whatever the payload is, UDP's sum is never 0 on the wire: that would mean that there is none."""
    run = leaves(bed, A, family, udp(1000, 53, struct.pack("!H", 0)))
    # One's complement: adding the sum itself to the payload makes it come out as zero.
    zero = leaves(bed, A, family, udp(1000, 53, struct.pack("!H", run.ip[UDP].chksum)))
    assert zero.ip[UDP].chksum == 0xFFFF


@FAMILIES
def test_icmp_by_its_id(bed: ProgramBed, family: int) -> None:
    run = leaves(bed, A, family, echo(family, 7))
    other = leaves(bed, B, family, echo(family, 7))
    ids = [one.ip.payload.id for one in (run, other)]
    assert ids[0] != ids[1]
    for pod, number in zip((A, B), ids, strict=True):
        answer = bed.from_device(ip(world(family), node(family)) / echo_reply(family, number))
        forwarded(answer, ACTION_POD, bed, f"plm{pod.name}", HOOK_FROM_DEVICE)
        assert (answer.ip.dst, answer.ip.payload.id) == (pod.address(family), 7)
    untouched(bed.from_device(ip(world(family), node(family)) / echo(family, ids[0])))


@FAMILIES
def test_sctp_keeps_its_ports(bed: ProgramBed, family: int) -> None:
    packet = ip(A.address(family), world(family)) / sctp(5000, 3868)
    run = bed.from_pod(A, packet)
    assert (run.verdict, run.ip.src, run.ip[SCTP].sport) == ("redirect", node(family), 5000)
    assert bytes(run.ip[SCTP]) == bytes(packet.__class__(bytes(packet))[SCTP]), "its checksum covers no addresses"
    back = bed.from_device(ip(world(family), node(family)) / sctp(3868, 5000))
    assert (back.verdict, back.ip.dst, back.ip[SCTP].dport) == ("redirect", A.address(family), 5000)
    clash = ip(B.address(family), world(family)) / sctp(5000, 3868)
    dropped(bed.from_pod(B, clash), DROP_NAT_NO_PORT)
    free = ip(B.address(family), world(family)) / sctp(5001, 3868)
    assert bed.from_pod(B, free).verdict == "redirect"


def test_protocols_without_ports(bed: ProgramBed) -> None:
    packet = ip(A.address4, WORLD4, proto=47) / Raw(bytes(20))
    run = bed.from_pod(A, packet)
    assert (run.verdict, run.ip.src) == ("redirect", NODE4)
    assert_right(run.ip)
    back = bed.from_device(ip(WORLD4, NODE4, proto=47) / Raw(bytes(20)))
    assert (back.verdict, back.ip.dst) == ("redirect", A.address4)
    dropped(bed.from_pod(B, ip(B.address4, WORLD4, proto=47) / Raw(bytes(20))), DROP_NAT_NO_PORT)


@FAMILIES
def test_ports_are_given_to_one_flow_each_until_there_are_none(bed: ProgramBed, family: int) -> None:
    count = PORTS[1] - PORTS[0] + 1
    seen = {leaves(bed, A, family, udp(2000 + number, 53)).ip[UDP].sport for number in range(count)}
    assert seen == set(range(PORTS[0], PORTS[1] + 1))
    late = ip(B.address(family), world(family)) / udp(2000, 53)
    dropped(bed.from_pod(B, late), DROP_NAT_NO_PORT)
    assert bed.flow(late) is None
    elsewhere = bed.from_pod(B, ip(B.address(family), world(family)) / udp(2000, 54))
    forwarded(elsewhere, ACTION_DEVICE, bed, "ens0")
    # One flow's time is over: its port is free.
    [(key, entry)] = [
        (key, one) for key, one in bed.nat().items() if one.port == 2007 and key.direction == layout.NAT_IN
    ]
    over = (bed.clock.now_j() - 1) & 0xFFFFFFFF
    bed.maps["nat"].update(key.pack(), entry.__class__(entry.address, entry.port, over, entry.created_j).pack())
    run = forwarded(bed.from_pod(B, late), ACTION_DEVICE, bed, "ens0")
    assert run.ip[UDP].sport == key.destination_port


@pytest.fixture
def sockets(bed: ProgramBed) -> Iterator[list[socket.socket]]:
    """Sockets of the node's own: all ports of the range but the last are taken, in each family and protocol."""
    opened: list[socket.socket] = []
    for family, address in ((socket.AF_INET, NODE4), (socket.AF_INET6, NODE6)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for port in range(PORTS[0], PORTS[1]):
                one = socket.socket(family, kind)
                opened.append(one)
                one.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    one.listen()
    yield opened
    for one in opened:
        one.close()


@FAMILIES
def test_the_nodes_own_sockets_keep_their_ports(bed: ProgramBed, sockets: list[socket.socket], family: int) -> None:
    for make, kind in ((tcp, TCP), (udp, UDP)):
        run = leaves(bed, A, family, make(1000, 443))
        assert run.ip[kind].sport == PORTS[1], "the one that is left"
        dropped(bed.from_pod(A, ip(A.address(family), world(family)) / make(1001, 443)), DROP_NAT_NO_PORT)
    assert leaves(bed, A, family, echo(family, 5)).ip.payload.id in range(PORTS[0], PORTS[1] + 1)


@FAMILIES
def test_the_port_stays_when_decisions_do_not(bed: ProgramBed, family: int) -> None:
    port = leaves(bed, A, family, tcp(1000, 443)).ip[TCP].sport
    for _ in range(5):
        bed.new_generation()
        assert leaves(bed, A, family, tcp(1000, 443, "A")).ip[TCP].sport == port
    assert len(bed.nat()) == 2
    bed.expire(ip(A.address(family), world(family)) / tcp(1000, 443))
    assert leaves(bed, A, family, tcp(1000, 443, "A")).ip[TCP].sport == port, "not even when the flow is forgotten"


def test_one_half_was_forgotten(bed: ProgramBed) -> None:
    """LRU maps forget entry by entry."""
    port = leaves(bed, A, 4, udp(1000, 53)).ip[UDP].sport
    for direction in (layout.NAT_IN, layout.NAT_OUT):
        [key] = [key for key in bed.nat() if key.direction == direction]
        bed.maps["nat"].delete(key.pack())
        bed.new_generation()
        now = leaves(bed, A, 4, udp(1000, 53)).ip[UDP].sport
        if direction == layout.NAT_IN:
            assert now == port
        forwarded(bed.from_device(ip(WORLD4, NODE4) / udp(53, now)), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)


@FAMILIES
def test_what_only_comes_in_keeps_its_port(bed: ProgramBed, family: int) -> None:
    """A stream that the pod asked for once and never answers: both entries live on with the flow."""
    port = leaves(bed, A, family, udp(1000, 443)).ip[UDP].sport
    answer = ip(world(family), node(family)) / udp(443, port)
    forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    soon = bed.clock.now_j() + 10 * bed.clock.hz
    for key, value in bed.nat().items():
        bed.maps["nat"].update(key.pack(), replace(value, expires_j=soon & 0xFFFFFFFF).pack())
    bed.new_generation()
    forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert {value.expires_j - soon > 10 * bed.clock.hz for value in bed.nat().values()} == {True}
    assert {key.direction for key in bed.nat()} == {layout.NAT_IN, layout.NAT_OUT}


@FAMILIES
def test_an_answer_after_the_flow_was_forgotten(bed: ProgramBed, family: int) -> None:
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(ingress=True)))
    port = leaves(bed, A, family, udp(1000, 53)).ip[UDP].sport
    bed.maps["flows"].clear()
    answer = ip(world(family), node(family)) / udp(53, port)
    forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert leaves(bed, A, family, udp(1000, 53)).ip[UDP].sport == port
    stranger = ip(world(family), A.address(family)) / udp(53, 1001)
    dropped(bed.from_device(stranger), layout.DROP_POLICY_INGRESS, HOOK_FROM_DEVICE)


@FAMILIES
def test_an_answer_with_no_hops_left(bed: ProgramBed, family: int) -> None:
    """Who sent it is told of the packet that he sent, not of the pod's."""
    port = leaves(bed, A, family, udp(1000, 53)).ip[UDP].sport
    answer = ip(world(family), node(family), ttl=1) / udp(53, port, bytes(32))
    run = dropped(bed.from_device(answer), DROP_TTL, HOOK_FROM_DEVICE, answered=True)
    assert_right(run.ip)
    inner = quoted(run.ip)
    assert (inner.src, inner.dst) == (world(family), node(family))
    assert bytes(inner.payload)[:4] == struct.pack("!HH", 53, port)


def test_answers_that_are_none(bed: ProgramBed) -> None:
    port = leaves(bed, A, 4, udp(1000, 53)).ip[UDP].sport
    for packet in (
        ip(WORLD4, NODE4) / udp(54, port),
        ip("203.0.113.10", NODE4) / udp(53, port),
        ip(WORLD4, NODE4) / tcp(53, port, "SA"),
        ip(WORLD4, NODE4) / udp(53, port - 1 if port > PORTS[0] else port + 1),
        ip(WORLD4, NODE4) / udp(53, 22),
    ):
        untouched(bed.from_device(packet))
    over = (bed.clock.now_j() - 1) & 0xFFFFFFFF
    for key, entry in bed.nat().items():
        bed.maps["nat"].update(key.pack(), entry.__class__(entry.address, entry.port, over, entry.created_j).pack())
    untouched(bed.from_device(ip(WORLD4, NODE4) / udp(53, port)))


def test_the_pod_is_gone(bed: ProgramBed) -> None:
    port = leaves(bed, A, 4, udp(1000, 53)).ip[UDP].sport
    bed.maps["addresses"].delete(layout.address_bytes(A.address4))
    bed.new_generation()
    dropped(bed.from_device(ip(WORLD4, NODE4) / udp(53, port)), DROP_NO_ENDPOINT, HOOK_FROM_DEVICE)


@pytest.mark.parametrize(
    ("address", "action"),
    [
        (REMOTE4, ACTION_DEVICE),
        (REMOTE6, ACTION_DEVICE),
        (CLUSTER4, ACTION_DEVICE),
        (CLUSTER6, ACTION_DEVICE),
        (B.address4, ACTION_POD),
    ],
)
def test_whom_pods_meet_with_their_own_address(bed: ProgramBed, address: str, action: int) -> None:
    source = A.address6 if ":" in address else A.address4
    run = bed.from_pod(A, ip(source, address) / udp(1000, 53))
    forwarded(run, action, bed, "plmb" if action == ACTION_POD else "ens0")
    assert (run.ip.src, run.ip[UDP].sport) == (source, 1000)
    assert bed.nat() == {}


def test_other_nodes_see_the_nodes_address(bed: ProgramBed) -> None:
    run = forwarded(bed.from_pod(A, ip(A.address4, OTHER_NODE4) / udp(1000, 53)), ACTION_DEVICE, bed, "ens0")
    assert run.ip.src == NODE4


def test_an_exclusion_that_comes_and_goes(bed: ProgramBed) -> None:
    """What has begun goes on as it did."""
    excluded = layout.Target(kind=layout.TARGET_RANGE, flags=layout.TARGET_CLUSTER, identity=layout.IDENTITY_WORLD)
    first = leaves(bed, A, 4, udp(1000, 53))
    bed.set_range("203.0.113.0", 24, excluded)
    bed.new_generation()
    assert leaves(bed, A, 4, udp(1000, 53)).ip[UDP].sport == first.ip[UDP].sport
    second = leaves(bed, A, 4, udp(1001, 53))
    assert second.ip.src == A.address4
    bed.maps["cidrs"].delete(layout.CidrKey(96 + 24, layout.address_bytes("203.0.113.0")).pack())
    bed.new_generation()
    assert leaves(bed, A, 4, udp(1001, 53)).ip.src == A.address4
    assert leaves(bed, A, 4, udp(1002, 53)).ip.src == NODE4


@FAMILIES
def test_a_device_without_an_address(bed: ProgramBed, family: int) -> None:
    bed.spaces.ip(bed.node, "route replace 2001:db8:9::/64 via fe80::99 dev ens1 onlink")
    packet = ip(A.address(family), "2001:db8:9::9" if family == 6 else "198.18.3.9") / udp(1000, 53)
    dropped(bed.from_pod(A, packet), DROP_NAT_NO_ADDRESS)
    late = ip(A.address(family), world(family)) / udp(1001, 53)
    dropped(bed.to_device(late, device="ens1"), DROP_NAT_NO_ADDRESS, HOOK_TO_DEVICE)


def test_answers_of_pods_are_not_masqueraded(bed: ProgramBed) -> None:
    forwarded(bed.from_device(ip(WORLD4, A.address4) / tcp(5000, 80)), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    run = leaves(bed, A, 4, tcp(80, 5000, "SA"))
    assert (run.ip.src, run.ip[TCP].sport) == (A.address4, 80)
    untouched(bed.to_device(ip(A.address4, WORLD4) / tcp(80, 5000, "A")))


def test_masquerade_of_one_family_only() -> None:
    flags = layout.CONFIG_IPV4 | layout.CONFIG_IPV6 | layout.CONFIG_MASQUERADE6
    with ProgramBed(flags) as bed:
        assert leaves(bed, A, 4, udp(1000, 53)).ip.src == A.address4
        assert leaves(bed, A, 6, udp(1000, 53)).ip.src == NODE6
        untouched(bed.to_device(ip(A.address4, WORLD4) / udp(9, 9)))
    with ProgramBed(layout.CONFIG_IPV4 | layout.CONFIG_IPV6) as bed:
        assert leaves(bed, A, 6, udp(1000, 53)).ip.src == A.address6
        untouched(bed.to_device(ip(A.address6, WORLD6) / udp(9, 9)))
        untouched(bed.from_device(ip(WORLD4, NODE4) / udp(53, PORTS[0])))


# ---- by the node's stack ----


@FAMILIES
def test_what_the_stack_sends_for_pods(bed: ProgramBed, family: int) -> None:
    packet = ip(A.address(family), world(family)) / udp(1000, 53)
    run = passed(bed.to_device(packet, mark=layout.mark_of(A.identity)), HOOK_TO_DEVICE)
    assert_right(run.ip)
    assert (run.ip.src, run.ip.ttl if family == 4 else run.ip.hlim) == (node(family), 64), "the stack counted the hop"
    again = passed(bed.to_device(packet), HOOK_TO_DEVICE)
    assert again.ip[UDP].sport == run.ip[UDP].sport
    assert leaves(bed, A, family, udp(1000, 53)).ip[UDP].sport == run.ip[UDP].sport, "and what the program sends"


def test_what_the_stack_sends_for_itself_or_has_been_through(bed: ProgramBed) -> None:
    for packet, mark in (
        (ip(NODE4, WORLD4) / udp(PORTS[0], 53), 0),
        (ip(A.address4, WORLD4) / udp(1000, 53), layout.mark_of(A.identity, layout.MARK_DONE)),
        (ip(A.address4, REMOTE4) / udp(1000, 53), 0),
        (ip(A.address4, CLUSTER4) / udp(1000, 53), 0),
        (ip(A.address4, SERVICE4) / udp(1000, 53), 0),
        (ip(REMOTE4, WORLD4) / udp(1000, 53), 0),
    ):
        run = untouched(bed.to_device(packet, mark=mark))
        assert (run.ip.src, run.mark) == (packet.src, mark)
    unknown = bed.to_device(ip(A.address4, WORLD4) / udp(1, 1), device="bare")
    assert untouched(unknown).ip.src == A.address4


def test_resolving_a_neighbour_comes_after_the_rewrite(bed: ProgramBed) -> None:
    run = bed.from_pod(A, ip(A.address4, "198.51.100.9") / udp(1000, 53))
    forwarded(run, ACTION_NEIGHBOUR, bed, "ens0")
    assert run.ip.src == NODE4
