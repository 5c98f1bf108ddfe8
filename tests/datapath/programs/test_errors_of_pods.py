"""ICMP errors that pods send, and those about what is rarely masqueraded."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_POD,
    DROP_CONTROL,
    DROP_ICMP_UNRELATED,
    DROP_NO_ENDPOINT,
    DROP_NO_TUNNEL,
    DROP_SPOOFED_MAC,
    HOOK_FROM_DEVICE,
    HOOK_TO_DEVICE,
    HOOK_TO_POD,
)
from tests.datapath.programs.bed import (
    HOST_MAC,
    NODE4,
    NODE6,
    TUNNEL4,
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
from tests.datapath.programs.packets import echo, echo_reply, ip, quoted, sctp, tcp, udp, unreachable

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])
ROUTER4, ROUTER6 = "203.0.113.254", "2600::ffff"


def ends(family: int) -> tuple[str, str]:
    """Of the world and of the node."""
    return (WORLD6, NODE6) if family == 6 else (WORLD4, NODE4)


def again(packet: Packet) -> Packet:
    return packet.__class__(bytes(packet))


@FAMILIES
def test_to_the_node(bed: ProgramBed, family: int) -> None:
    _, node = ends(family)
    there = ip(node, A.address(family)) / udp(5000, 53)
    passed(bed.to_pod(A, there), HOOK_TO_POD)
    passed(bed.from_pod(A, ip(A.address(family), node) / unreachable(there, family)))


@FAMILIES
def test_about_an_answer_that_the_stack_brought(bed: ProgramBed, family: int) -> None:
    """The stack masqueraded, and has to translate the error too."""
    world, node = ends(family)
    out = passed(bed.to_device(ip(A.address(family), world) / udp(1000, 53)), HOOK_TO_DEVICE).ip
    got = passed(bed.from_device(ip(world, node) / udp(53, out[UDP].sport)), HOOK_FROM_DEVICE).ip
    run = passed(bed.from_pod(A, ip(A.address(family), world) / unreachable(got, family)))
    assert run.ip.src == A.address(family)


def test_of_a_router_pod(bed: ProgramBed) -> None:
    """It tells of what came to those behind it."""
    sent = ip(B.address4, A.address4) / udp(1000, 53)
    forwarded(bed.from_pod(B, sent), ACTION_POD, bed, "plma")
    error = ip("172.16.0.1", B.address4) / unreachable(sent)
    dropped(bed.from_pod(A, error), layout.DROP_SPOOFED_ADDRESS)
    bed.set_pod(A, layout.TARGET_ANY_SOURCE)
    forwarded(bed.from_pod(A, error), ACTION_POD, bed, "plmb")


def test_to_whom_there_is_no_way_any_more(bed: ProgramBed) -> None:
    sent = ip(A.address4, TUNNEL4) / udp(1000, 53)
    forwarded(bed.from_pod(A, sent), layout.ACTION_TUNNEL, bed, "plm_vxlan")
    got = ip(TUNNEL4, A.address4) / udp(53, 1000)
    bed.set_address(TUNNEL4, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=layout.TARGET_TUNNEL))
    dropped(bed.from_pod(A, ip(A.address4, TUNNEL4) / unreachable(got)), DROP_NO_TUNNEL)


def test_of_nobody(bed: ProgramBed) -> None:
    sent = ip(B.address4, A.address4) / udp(1000, 53)
    bed.maps["endpoints"].delete(struct.pack("=I", bed.ifindex["plma"]))
    dropped(bed.from_pod(A, ip(A.address4, B.address4) / unreachable(sent)), DROP_NO_ENDPOINT)


@FAMILIES
def test_about_an_echo_that_was_answered(bed: ProgramBed, family: int) -> None:
    world, node = ends(family)
    out = forwarded(bed.from_pod(A, ip(A.address(family), world) / echo(family, 9)), ACTION_DEVICE, bed, "ens0").ip
    answer = again(ip(world, node) / echo_reply(family, out.payload.id))
    got = forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE).ip
    error = ip(A.address(family), world) / unreachable(got, family)
    inner = quoted(forwarded(bed.from_pod(A, error), ACTION_DEVICE, bed, "ens0").ip)
    assert (inner.dst, bytes(inner.payload)) == (node, bytes(answer.payload))


@FAMILIES
def test_about_masqueraded_sctp(bed: ProgramBed, family: int) -> None:
    world, node = ends(family)
    sent = again(ip(A.address(family), world) / sctp(5000, 3868))
    out = bed.from_pod(A, sent).ip
    error = ip(ROUTER6 if family == 6 else ROUTER4, node) / unreachable(out, family)
    inner = quoted(forwarded(bed.from_device(error), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE).ip)
    assert (inner.src, bytes(inner.payload)) == (A.address(family), bytes(sent.payload))


@FAMILIES
def test_a_quoted_checksum_of_zero(bed: ProgramBed, family: int) -> None:
    """TCP's may be 0; UDP's that comes out as 0 is written as 0xffff, as 0 means that there is none."""
    world, node = ends(family)
    router = ROUTER6 if family == 6 else ROUTER4
    for make, kind, number in ((tcp, TCP, 1000), (udp, UDP, 1001)):
        flags = ("A",) if make is tcp else ()

        def made(data: bytes, make=make, number=number, flags=flags) -> Packet:  # type: ignore[no-untyped-def]
            return again(ip(A.address(family), world) / make(number, 53, *flags, data))

        # Adding the sum itself to the payload makes it come out as zero.
        zero = made(struct.pack("!H", made(bytes(2))[kind].chksum))
        assert zero[kind].chksum == (0 if make is tcp else 0xFFFF)
        out = forwarded(bed.from_pod(A, zero), ACTION_DEVICE, bed, "ens0").ip
        run = bed.from_device(ip(router, node) / unreachable(out, family))
        forwarded(run, ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
        assert bytes(quoted(run.ip)[kind]) == bytes(zero[kind])
        out[kind].chksum = 0
        run = bed.from_device(ip(router, node) / unreachable(out, family))
        assert run.verdict == "redirect"
        assert (quoted(run.ip)[kind].chksum == 0) == (make is udp), "no checksum stays none; a wrong one stays as wrong"


# ---- what is refused ----


def test_a_mac_of_another_maker(bed: ProgramBed) -> None:
    packet = ip(A.address4, B.address4) / udp(1, 2)
    dropped(bed.from_pod(A, packet, source_mac="06:00:00:00:00:0a"), DROP_SPOOFED_MAC)


def test_to_many_with_a_borrowed_address(bed: ProgramBed) -> None:
    dropped(bed.from_pod(A, IPv6(src=B.address6, dst="ff02::1") / udp(1, 2)), DROP_CONTROL)


def test_the_nodes_questions_reach_pods(bed: ProgramBed) -> None:
    frame = Ether(src=HOST_MAC, dst=A.mac) / ARP(psrc="169.254.1.1", pdst=A.address4)
    untouched(bed.run("to_pod", frame, device="plma"), bytes(frame))


def test_unrelated_errors_by_a_pod_that_is_a_router(bed: ProgramBed) -> None:
    bed.set_pod(A, layout.TARGET_ANY_SOURCE)
    error = ip("172.16.0.1", B.address4) / unreachable(ip(B.address4, A.address4) / udp(1, 2))
    dropped(bed.from_pod(A, error), DROP_ICMP_UNRELATED)
