"""ICMP errors: those about packets of flows that exist reach who sent the packet, in words that he understands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.packet import Packet, Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_POD,
    DROP_ICMP_UNRELATED,
    DROP_MALFORMED,
    DROP_POLICY_EGRESS,
    DROP_SPOOFED_ADDRESS,
    HOOK_FROM_DEVICE,
    HOOK_TO_POD,
)
from datapath.policy.model import EndpointPolicy, Enforcement
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
from tests.datapath.programs.packets import (
    assert_right,
    echo,
    ip,
    quoted,
    tcp,
    time_exceeded,
    too_big,
    udp,
    unreachable,
)

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def world(family: int) -> str:
    return WORLD6 if family == 6 else WORLD4


def node(family: int) -> str:
    return NODE6 if family == 6 else NODE4


def router(family: int) -> str:
    return "2600::ffff" if family == 6 else "203.0.113.254"


def cut(packet: Packet, family: int) -> bytes:
    """As a router quotes it that keeps to RFC 792: eight bytes of the transport header."""
    return bytes(packet)[: (48 if family == 6 else packet.ihl * 4 + 8 if packet.ihl else 28)]


@FAMILIES
@pytest.mark.parametrize("make", [tcp, udp])
def test_of_one_pod_to_another(bed: ProgramBed, family: int, make: type) -> None:
    sent = ip(A.address(family), B.address(family)) / make(1000, 53)
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    error = ip(B.address(family), A.address(family)) / unreachable(sent, family)
    run = forwarded(bed.from_pod(B, error), ACTION_POD, bed, "plma")
    assert bytes(run.ip.payload) == bytes(error.__class__(bytes(error)).payload)


@FAMILIES
def test_errors_of_pods_that_are_not_sent(bed: ProgramBed, family: int) -> None:
    sent = ip(A.address(family), B.address(family)) / udp(1000, 53)
    error = ip(B.address(family), A.address(family)) / unreachable(sent, family)
    dropped(bed.from_pod(B, error), DROP_ICMP_UNRELATED)  # no such flow
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    forwarded(bed.from_pod(B, error), ACTION_POD, bed, "plma")
    dropped(bed.from_pod(A, ip(B.address(family), A.address(family)) / unreachable(sent, family)), DROP_SPOOFED_ADDRESS)
    to_else = ip(B.address(family), world(family)) / unreachable(sent, family)
    dropped(bed.from_pod(B, to_else), DROP_ICMP_UNRELATED)
    short = ip(B.address(family), A.address(family)) / unreachable(bytes(sent)[:20], family)
    dropped(bed.from_pod(B, short), DROP_MALFORMED)
    about_error = ip(A.address(family), B.address(family)) / unreachable(sent, family)
    dropped(
        bed.from_pod(B, ip(B.address(family), A.address(family)) / unreachable(about_error, family)),
        DROP_ICMP_UNRELATED,
    )
    bed.expire(sent)
    dropped(bed.from_pod(B, error), DROP_ICMP_UNRELATED)


@FAMILIES
def test_a_pod_cannot_break_the_connections_of_others(bed: ProgramBed, family: int) -> None:
    """The world talks with b; a says that b is not there."""
    sent = ip(world(family), B.address(family)) / tcp(5000, 80)
    forwarded(bed.from_device(sent), ACTION_POD, bed, "plmb", HOOK_FROM_DEVICE)
    forged = ip(A.address(family), world(family)) / too_big(sent, 600, family)
    dropped(bed.from_pod(A, forged), DROP_ICMP_UNRELATED)


@FAMILIES
def test_no_errors_about_what_was_denied(bed: ProgramBed, family: int) -> None:
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(egress=True)))
    sent = ip(A.address(family), B.address(family)) / udp(1000, 53)
    dropped(bed.from_pod(A, sent), DROP_POLICY_EGRESS)
    error = ip(B.address(family), A.address(family)) / unreachable(sent, family)
    dropped(bed.from_pod(B, error), DROP_ICMP_UNRELATED)
    out = ip(A.address(family), world(family)) / udp(1000, 53)
    dropped(bed.from_pod(A, out), DROP_POLICY_EGRESS)
    dropped(
        bed.from_device(ip(world(family), A.address(family)) / unreachable(out, family)), DROP_ICMP_UNRELATED,
        HOOK_FROM_DEVICE,
    )  # fmt: skip


@FAMILIES
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", ["tcp", "udp", "udp without checksum", "echo"])
def test_from_outside_about_what_was_masqueraded(bed: ProgramBed, family: int, whole: bool, kind: str) -> None:
    """A router on the way says that it is too big: the pod has to read its own packet in it."""
    unsummed = kind.endswith("checksum")
    payload = {"tcp": tcp(1000, 443), "udp": udp(1000, 53), "echo": echo(family, 9)}.get(kind, udp(1000, 53, chksum=0))
    sent = ip(A.address(family), world(family)) / payload
    out = forwarded(bed.from_pod(A, sent), ACTION_DEVICE, bed, "ens0", unsummed=unsummed).ip
    quote = bytes(out) if whole else cut(out, family)
    error = ip(router(family), node(family)) / too_big(quote, 1400, family)
    run = forwarded(bed.from_device(error), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert (run.ip.src, run.ip.dst) == (router(family), A.address(family))
    assert (run.ip[ICMPv6PacketTooBig].mtu if family == 6 else run.ip[ICMP].nexthopmtu) == 1400
    inner = quoted(run.ip)
    sent = sent.__class__(bytes(sent))
    assert (inner.src, inner.dst) == (sent.src, sent.dst)
    assert bytes(inner.payload)[:8] == bytes(sent.payload)[:8], "ports, id and checksum as the pod sent them"


@FAMILIES
def test_from_a_pod_about_an_answer_to_what_was_masqueraded(bed: ProgramBed, family: int) -> None:
    """The pod has closed its port meanwhile: the world has to read its own packet in the error."""
    answers: list[tuple[Packet, Callable[[int], Packet]]] = [
        (udp(1000, 53), lambda port: udp(53, port)),
        (tcp(1000, 80), lambda port: tcp(80, port, "SA")),
    ]
    for payload, answer in answers:
        out = forwarded(bed.from_pod(A, ip(A.address(family), world(family)) / payload), ACTION_DEVICE, bed, "ens0").ip
        back = ip(world(family), node(family)) / answer(out[TCP if TCP in out else UDP].sport)
        got = forwarded(bed.from_device(back), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE).ip
        for quote in (bytes(got), cut(got, family)):
            error = ip(A.address(family), world(family)) / unreachable(quote, family)
            run = forwarded(bed.from_pod(A, error), ACTION_DEVICE, bed, "ens0")
            assert (run.ip.src, run.ip.dst) == (node(family), world(family))
            inner = quoted(run.ip)
            back = back.__class__(bytes(back))
            assert (inner.src, inner.dst) == (back.src, back.dst)
            assert bytes(inner.payload)[:8] == bytes(back.payload)[:8]


def test_the_mapping_was_forgotten(bed: ProgramBed) -> None:
    out = forwarded(bed.from_pod(A, ip(A.address4, WORLD4) / udp(1000, 53)), ACTION_DEVICE, bed, "ens0").ip
    got = forwarded(
        bed.from_device(ip(WORLD4, NODE4) / udp(53, out[UDP].sport)), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE
    ).ip
    bed.maps["nat"].clear()
    dropped(bed.from_pod(A, ip(A.address4, WORLD4) / unreachable(got)), DROP_ICMP_UNRELATED)
    untouched(bed.from_device(ip(WORLD4, NODE4) / unreachable(out)))


@FAMILIES
def test_from_outside_about_what_was_not(bed: ProgramBed, family: int) -> None:
    remote = REMOTE6 if family == 6 else REMOTE4
    sent = ip(A.address(family), remote) / udp(1000, 53)
    forwarded(bed.from_pod(A, sent), ACTION_DEVICE, bed, "ens0")
    for error in (unreachable(sent, family), time_exceeded(cut(sent, family), family)):
        run = bed.from_device(ip(router(family), A.address(family)) / error)
        forwarded(run, ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
        assert bytes(quoted(run.ip))[:28] == bytes(sent)[:28]
    other = ip(A.address(family), remote) / udp(1001, 53)
    run = bed.from_device(ip(router(family), A.address(family)) / unreachable(other, family))
    dropped(run, DROP_ICMP_UNRELATED, HOOK_FROM_DEVICE)


@FAMILIES
def test_from_outside_for_the_node(bed: ProgramBed, family: int) -> None:
    of_node = ip(node(family), world(family)) / udp(33000, 53)
    untouched(bed.from_device(ip(router(family), node(family)) / unreachable(of_node, family)))
    lie = ip(A.address(family), world(family)) / udp(1000, 53)
    untouched(bed.from_device(ip(router(family), node(family)) / unreachable(lie, family)))
    short = ip(router(family), node(family)) / unreachable(b"", family)
    untouched(bed.from_device(short))


@FAMILIES
def test_by_the_stack_to_a_pod(bed: ProgramBed, family: int) -> None:
    sent = ip(A.address(family), node(family)) / udp(1000, 53)
    passed(bed.from_pod(A, sent))
    error = ip(node(family), A.address(family)) / unreachable(sent, family)
    passed(bed.to_pod(A, error), HOOK_TO_POD)
    other = ip(A.address(family), node(family)) / udp(1001, 53)
    dropped(
        bed.to_pod(A, ip(node(family), A.address(family)) / unreachable(other, family)),
        DROP_ICMP_UNRELATED,
        HOOK_TO_POD,
    )
    dropped(
        bed.to_pod(A, ip(node(family), A.address(family)) / unreachable(b"x" * 8, family)), DROP_MALFORMED, HOOK_TO_POD
    )
    dropped(
        bed.to_pod(B, ip(node(family), B.address(family)) / unreachable(sent, family)), DROP_ICMP_UNRELATED, HOOK_TO_POD
    )


def test_the_quote_of_a_fragment(bed: ProgramBed) -> None:
    sent = ip(A.address4, B.address4) / udp(1000, 53, bytes(40))
    forwarded(bed.from_pod(A, sent), ACTION_POD, bed, "plmb")
    later = IP(src=A.address4, dst=B.address4, proto=17, frag=3) / Raw(bytes(8))
    dropped(bed.from_pod(B, ip(B.address4, A.address4) / unreachable(later)), DROP_MALFORMED)
    first = IP(src=A.address4, dst=B.address4, flags="MF") / udp(1000, 53, bytes(40))
    forwarded(bed.from_pod(B, ip(B.address4, A.address4) / unreachable(first)), ACTION_POD, bed, "plma")


def test_a_reset_port_in_the_quote_keeps_its_sum(bed: ProgramBed) -> None:
    """A pod's port that is kept: only the address is rewritten."""
    packet = ip(A.address4, WORLD4) / udp(40007, 53)
    out = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0").ip
    [key_out] = [key for key in bed.nat() if key.direction == layout.NAT_OUT]
    [key_in] = [key for key in bed.nat() if key.direction == layout.NAT_IN]
    # As if its own port had been drawn.
    entries = bed.nat()
    bed.maps["nat"].delete(key_in.pack())
    moved = layout.NatKey(key_in.source, key_in.destination, key_in.source_port, 40007, 17, layout.NAT_IN)
    bed.maps["nat"].update(moved.pack(), entries[key_in].pack())
    there = entries[key_out]
    bed.maps["nat"].update(
        key_out.pack(),
        layout.Nat(there.address, 40007, there.expires_j, there.created_j, there.checksum_diff).pack(),
    )
    bed.new_generation()
    out = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0").ip
    assert out[UDP].sport == 40007
    run = bed.from_device(ip(WORLD4, NODE4) / unreachable(out))
    forwarded(run, ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert_right(run.ip)
