"""What a pod may send: its own addresses from its own MAC, and questions about its neighbours."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from datapath import layout
from datapath.layout import (
    DROP_CONTROL,
    DROP_FAMILY_OFF,
    DROP_MALFORMED,
    DROP_NO_ENDPOINT,
    DROP_SPOOFED_ADDRESS,
    DROP_SPOOFED_MAC,
    DROP_UNSUPPORTED,
)
from tests.datapath.programs.bed import (
    HOST_MAC,
    NODE4,
    NODE6,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
    Run,
    dropped,
    forwarded,
)
from tests.datapath.programs.packets import assert_right, ip, tcp, udp

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (B.address4, DROP_SPOOFED_ADDRESS),
        (NODE4, DROP_SPOOFED_ADDRESS),
        ("0.0.0.0", DROP_SPOOFED_ADDRESS),
        (B.address6, DROP_SPOOFED_ADDRESS),
        (NODE6, DROP_SPOOFED_ADDRESS),
        ("::", DROP_SPOOFED_ADDRESS),
        ("fe80::a", DROP_CONTROL),
    ],
)
def test_a_pod_lends_an_address(bed: ProgramBed, source: str, reason: int) -> None:
    packet = ip(source, WORLD6 if ":" in source else WORLD4) / udp(1000, 53)
    dropped(bed.from_pod(A, packet), reason)
    assert bed.flow(packet) is None


def test_a_pod_lends_an_address_on_a_flow_that_exists(bed: ProgramBed) -> None:
    of_b = ip(B.address4, WORLD4) / udp(1000, 53)
    forwarded(bed.from_pod(B, of_b), layout.ACTION_DEVICE, bed, "ens0")
    dropped(bed.from_pod(A, of_b), DROP_SPOOFED_ADDRESS)


@pytest.mark.parametrize("family", [4, 6])
def test_a_pod_lends_a_mac(bed: ProgramBed, family: int) -> None:
    packet = ip(A.address(family), B.address(family)) / udp(1000, 53)
    dropped(bed.from_pod(A, packet, source_mac=B.mac), DROP_SPOOFED_MAC)
    forwarded(bed.from_pod(A, packet), layout.ACTION_POD, bed, "plmb")
    dropped(bed.from_pod(A, packet, source_mac=B.mac), DROP_SPOOFED_MAC)


def test_a_router_pod_may_send_from_any_address(bed: ProgramBed) -> None:
    bed.set_pod(A, layout.TARGET_ANY_SOURCE)
    forwarded(bed.from_pod(A, ip("172.16.0.1", B.address4) / udp(1, 2)), layout.ACTION_POD, bed, "plmb")
    dropped(bed.from_pod(A, ip("172.16.0.1", B.address4) / udp(1, 2), source_mac=B.mac), DROP_SPOOFED_MAC)


def test_a_pod_of_one_family_has_no_address_of_the_other(bed: ProgramBed) -> None:
    key = struct.pack("=I", bed.ifindex["plma"])
    endpoint = layout.Endpoint.unpack(bed.maps["endpoints"].lookup(key) or b"")
    bed.maps["endpoints"].update(key, replace(endpoint, address4=layout.NO_ADDRESS).pack())
    dropped(bed.from_pod(A, ip(A.address4, WORLD4) / udp(1, 2)), DROP_SPOOFED_ADDRESS)
    dropped(bed.from_pod(A, ip("0.0.0.0", WORLD4) / udp(1, 2)), DROP_SPOOFED_ADDRESS)
    forwarded(bed.from_pod(A, ip(A.address6, WORLD6) / udp(1, 2)), layout.ACTION_DEVICE, bed, "ens0")


def test_a_device_that_belongs_to_nobody(bed: ProgramBed) -> None:
    bed.maps["endpoints"].delete(struct.pack("=I", bed.ifindex["plma"]))
    dropped(bed.from_pod(A, ip(A.address4, B.address4) / tcp(1, 2)), DROP_NO_ENDPOINT)
    dropped(bed.from_pod(A, ip(A.address4, B.address4) / udp(1, 2)), DROP_NO_ENDPOINT)
    dropped(arp(bed), DROP_NO_ENDPOINT)
    dropped(bed.to_pod(A, ip(B.address4, A.address4) / udp(1, 2)), DROP_NO_ENDPOINT, layout.HOOK_TO_POD)


def test_a_family_that_is_off() -> None:
    for flags, off, on in (
        (layout.CONFIG_IPV4, (A.address6, B.address6), (A.address4, B.address4)),
        (layout.CONFIG_IPV6, (A.address4, B.address4), (A.address6, B.address6)),
    ):
        with ProgramBed(flags, ("pod",)) as bed:
            dropped(bed.from_pod(A, ip(*off) / udp(1, 2)), DROP_FAMILY_OFF)
            dropped(bed.to_pod(B, ip(*off) / udp(1, 2)), DROP_FAMILY_OFF, layout.HOOK_TO_POD)
            forwarded(bed.from_pod(A, ip(*on) / udp(1, 2)), layout.ACTION_POD, bed, "plmb")


# ---- ARP ----


def arp(bed: ProgramBed, *, target: str = "169.254.1.1", source_mac: str = A.mac, cut: int = 60, **more: Any) -> Run:
    question = ARP(hwsrc=source_mac, psrc=A.address4, hwdst="00:00:00:00:00:00", pdst=target, **more)
    frame = bytes(Ether(src=source_mac, dst="ff:ff:ff:ff:ff:ff") / question)[:cut]
    return bed.run("from_pod", frame, device="plma")


@pytest.mark.parametrize("target", ["169.254.1.1", B.address4, WORLD4])
def test_the_node_answers_for_everybody(bed: ProgramBed, target: str) -> None:
    run = arp(bed, target=target)
    assert (run.verdict, run.mark) == ("redirect", layout.MARK_DONE)
    assert run.counted == {(layout.HOOK_FROM_POD, layout.DROP_NONE): 1}
    assert (run.packet.src, run.packet.dst) == (HOST_MAC, A.mac)
    answer = run.packet[ARP]
    assert (answer.op, answer.hwsrc, answer.psrc) == (2, HOST_MAC, target)
    assert (answer.hwdst, answer.pdst) == (A.mac, A.address4)


def test_a_pod_probes_its_own_address(bed: ProgramBed) -> None:
    dropped(arp(bed, target=A.address4), DROP_CONTROL)


def test_other_uses_of_arp(bed: ProgramBed) -> None:
    dropped(arp(bed, op=2), DROP_CONTROL)
    dropped(arp(bed, ptype=0x86DD), DROP_CONTROL)
    dropped(arp(bed, source_mac=B.mac), DROP_SPOOFED_MAC)
    dropped(arp(bed, cut=41), DROP_MALFORMED)


# ---- neighbour discovery ----


def solicit(bed: ProgramBed, *, target: str = "fe80::1", source: str = A.address6, mac: str = A.mac, hops: int = 255):  # type: ignore[no-untyped-def]
    question = IPv6(src=source, dst="ff02::1:ff00:1", hlim=hops) / ICMPv6ND_NS(tgt=target)
    return bed.from_pod(A, question / ICMPv6NDOptSrcLLAddr(lladdr=mac), source_mac=mac)


@pytest.mark.parametrize("target", ["fe80::1", B.address6, WORLD6])
@pytest.mark.parametrize("source", [A.address6, "fe80::a"])
def test_the_node_advertises_everybody(bed: ProgramBed, target: str, source: str) -> None:
    run = solicit(bed, target=target, source=source)
    assert (run.verdict, run.mark) == ("redirect", layout.MARK_DONE)
    assert run.counted == {(layout.HOOK_FROM_POD, layout.DROP_NONE): 1}
    assert (run.packet.src, run.packet.dst) == (HOST_MAC, A.mac)
    assert_right(run.ip)
    assert (run.ip.src, run.ip.dst, run.ip.hlim) == (target, source, 255)
    answer = run.ip[ICMPv6ND_NA]
    assert (answer.tgt, answer.R, answer.S, answer.O) == (target, 1, 1, 1)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == HOST_MAC


def test_questions_that_get_no_answer(bed: ProgramBed) -> None:
    dropped(solicit(bed, source="::"), DROP_CONTROL)  # who else has the address? nobody
    dropped(solicit(bed, target=A.address6), DROP_CONTROL)
    dropped(solicit(bed, hops=254), DROP_CONTROL)
    dropped(solicit(bed, mac=B.mac), DROP_SPOOFED_MAC)
    for chatter in (ICMPv6ND_RS(), ICMPv6ND_NA(tgt=A.address6), ICMPv6MLReport2()):
        dropped(bed.from_pod(A, IPv6(src="fe80::a", dst="ff02::2", hlim=255) / chatter), DROP_CONTROL)
    cut = bytes(Ether(src=A.mac, dst=HOST_MAC) / IPv6(src=A.address6, dst="ff02::2", hlim=255) / ICMPv6ND_NS())[:70]
    dropped(bed.run("from_pod", cut, device="plma"), DROP_MALFORMED)


# ---- what pods cannot speak ----


@pytest.mark.parametrize("kind", [0x8100, 0x88A8, 0x8847, 0x88CC, 0x0805])
def test_other_ethernet_types(bed: ProgramBed, kind: int) -> None:
    frame = Ether(src=A.mac, dst=HOST_MAC, type=kind) / (b"\x00\x05\x08\x00" + bytes(60))
    dropped(bed.run("from_pod", frame, device="plma"), DROP_UNSUPPORTED)
    dropped(bed.run("to_pod", frame, device="plma"), DROP_UNSUPPORTED, layout.HOOK_TO_POD)


@pytest.mark.parametrize("destination", ["224.0.0.251", "239.1.1.1", "255.255.255.255", "ff02::fb", "ff0e::1"])
def test_to_many_at_once(bed: ProgramBed, destination: str) -> None:
    source = A.address6 if ":" in destination else A.address4
    dropped(bed.from_pod(A, ip(source, destination) / udp(5353, 5353)), DROP_UNSUPPORTED)
