"""Maps, rings and budgets that are used up; numbers that lead nowhere."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_DIRECT,
    ACTION_POD,
    ACTION_TUNNEL,
    DROP_FLOW_FULL,
    DROP_FRAGMENT_UNKNOWN,
    DROP_NAT_NO_PORT,
    DROP_NO_TUNNEL,
    DROP_TTL,
    HOOK_FROM_DEVICE,
    HOOK_TO_DEVICE,
    Event,
)
from datapath.loader import libbpf, objects
from datapath.loader.libbpf import Object
from datapath.loader.maps import CPUS, HASH
from datapath.loader.programs import SkbContext
from tests.datapath.programs.bed import (
    ALL_ON,
    DIRECT4,
    DIRECT6,
    HOST_MAC,
    REMOTE4,
    TUNNEL4,
    TUNNEL6,
    WORLD4,
    A,
    B,
    ProgramBed,
    dropped,
    forwarded,
    passed,
)
from tests.datapath.programs.packets import ip, udp

pytestmark = pytest.mark.root


def of_fixed_size(monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
    """Of hash maps that make no room, unlike the LRU maps that the programs have."""
    before = objects._set_sizes

    def small(one: Object, asked: dict[str, int]) -> None:
        before(one, {name: size for name, size in asked.items() if name not in sizes})
        for name, handle in one.maps():
            if name in sizes:
                assert not libbpf.library().bpf_map__set_type(ctypes.c_void_p(handle), HASH)
                assert not libbpf.library().bpf_map__set_max_entries(handle, sizes[name])

    monkeypatch.setattr(objects, "_set_sizes", small)


def test_no_room_for_flows_from_outside_and_by_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    of_fixed_size(monkeypatch, flows=1)
    with ProgramBed() as bed:
        forwarded(bed.from_device(ip(REMOTE4, A.address4) / udp(1, 2)), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
        dropped(bed.from_device(ip(REMOTE4, A.address4) / udp(1, 3)), DROP_FLOW_FULL, HOOK_FROM_DEVICE)
        dropped(bed.to_device(ip(A.address4, REMOTE4) / udp(1, 4)), DROP_FLOW_FULL, HOOK_TO_DEVICE)


def test_no_room_for_mappings(monkeypatch: pytest.MonkeyPatch) -> None:
    of_fixed_size(monkeypatch, nat=2)
    with ProgramBed() as bed:
        packet = ip(A.address4, WORLD4) / udp(1000, 53)
        port = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0").ip[UDP].sport
        dropped(bed.from_pod(A, ip(A.address4, WORLD4) / udp(1001, 53)), DROP_NAT_NO_PORT)
        [back] = [key for key in bed.nat() if key.direction == layout.NAT_IN]
        other = replace(back, destination_port=port - 1)
        entry = bed.nat()[back]
        bed.maps["nat"].delete(back.pack())
        bed.maps["nat"].update(other.pack(), replace(entry, port=1009).pack())
        bed.new_generation()
        dropped(bed.from_pod(A, packet), DROP_NAT_NO_PORT)
        bed.maps["nat"].delete(other.pack())
        assert forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0").ip[UDP].sport == port


def test_no_room_for_the_ports_of_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes on by itself; those that follow are of nothing known."""
    of_fixed_size(monkeypatch, fragments=1)
    with ProgramBed(names=("pod",)) as bed:
        for number, follows in ((5, True), (6, False)):
            whole: dict[str, Any] = {"src": A.address4, "dst": B.address4, "id": number, "proto": 17}
            forwarded(bed.from_pod(A, IP(flags="MF", **whole) / udp(1, 2, bytes(16))), ACTION_POD, bed, "plmb")
            later = bed.from_pod(A, IP(frag=3, **whole) / Raw(bytes(16)))
            if follows:
                forwarded(later, ACTION_POD, bed, "plmb")
            else:
                dropped(later, DROP_FRAGMENT_UNKNOWN)


def test_a_ring_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no room is counted; packets go on."""
    with ProgramBed(names=("pod",), sizes={"events": 4096}) as bed:
        frame = bytes(Ether(src=B.mac, dst=HOST_MAC) / ip(A.address4, B.address4) / udp(1, 2))
        context = SkbContext(ifindex=bed.ifindex["plma"]).pack()
        for _ in range(100):
            assert bed.programs["from_pod"].test_run(frame, context=context).retval == 2
        lost = struct.unpack(f"={CPUS}Q", bed.maps["lost_events"].lookup(bytes(4)) or b"")
        told = [Event.unpack(record) for record in bed.ring.read()]
        assert sum(lost) + len(told) == 100
        assert 0 < len(told) < 100


def test_no_events_at_all(bed: ProgramBed) -> None:
    bed.set_runtime(drop_events_per_tick=0)
    run = bed.from_pod(A, ip(A.address4, B.address4) / udp(1, 2))
    assert (run.verdict, run.events) == ("redirect", ())


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """A test run is made on the caller's CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_cpu")
def test_samples_are_asked_for_more_often(bed: ProgramBed) -> None:
    packet = ip(A.address4, B.address4) / udp(1000, 53)
    bed.set_runtime(trace_every=100)
    assert len(bed.from_pod(A, packet).told(layout.EVENT_TRACE)) == 1, "and 99 are to pass before the next"
    bed.set_runtime(trace_every=3)
    told = [len(bed.from_pod(A, packet).told(layout.EVENT_TRACE)) for _ in range(5)]
    assert told == [1, 0, 0, 1, 0]


# ---- nodes, and ways to them ----


@pytest.mark.parametrize("flag", [layout.TARGET_TUNNEL, layout.TARGET_DIRECT])
def test_a_node_of_a_number_that_there_is_not(bed: ProgramBed, flag: int) -> None:
    beyond = bed.maps["nodes"].max_entries
    bed.set_address(TUNNEL4, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=flag, node=beyond))
    run = bed.from_pod(A, ip(A.address4, TUNNEL4) / udp(1, 2))
    assert (run.verdict, run.reason) == ("drop", DROP_NO_TUNNEL)


@pytest.mark.parametrize("node", ["2001:db8::7", "::5", "::ffff:192.0.2.7"])
@pytest.mark.parametrize("address", [TUNNEL4, TUNNEL6])
def test_tunnels_to_nodes_of_both_families(bed: ProgramBed, node: str, address: str) -> None:
    bed.maps["nodes"].update(struct.pack("=I", 5), layout.Node(layout.address_bytes(node)).pack())
    bed.set_address(address, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=layout.TARGET_TUNNEL, node=5))
    source = A.address6 if ":" in address else A.address4
    forwarded(bed.from_pod(A, ip(source, address) / udp(1, 2)), ACTION_TUNNEL, bed, "plm_vxlan")


def test_an_unresolved_node_whose_address_begins_like_a_mapped_one(bed: ProgramBed) -> None:
    bed.spaces.ip(bed.node, "route add ::5/128 via 2001:db8::98")
    try:
        bed.maps["nodes"].update(struct.pack("=I", 5), layout.Node(layout.address_bytes("::5")).pack())
        bed.set_address(DIRECT6, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=layout.TARGET_DIRECT, node=5))
        forwarded(bed.from_pod(A, ip(A.address6, DIRECT6) / udp(1, 2)), ACTION_DIRECT, bed, "ens0")
    finally:
        bed.spaces.ip(bed.node, "route del ::5/128 via 2001:db8::98")


def test_a_node_that_goes_before_its_decisions_do(bed: ProgramBed) -> None:
    bed.set_address(DIRECT4, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=layout.TARGET_DIRECT, node=3))
    packet = ip(A.address4, DIRECT4) / udp(1, 2)
    forwarded(bed.from_pod(A, packet), ACTION_DIRECT, bed, "ens0")
    bed.maps["nodes"].update(struct.pack("=I", 3), layout.Node(layout.NO_ADDRESS).pack())
    run = bed.from_pod(A, packet)
    assert (run.verdict, run.reason) == ("drop", DROP_NO_TUNNEL)


def test_an_overlay_that_is_not_among_the_devices(bed: ProgramBed) -> None:
    """Its size is not known: nothing is too big."""
    bed.maps["devices"].delete(struct.pack("=I", bed.ifindex["plm_vxlan"]))
    packet = ip(A.address4, TUNNEL4) / udp(1, 2, bytes(1472))
    forwarded(bed.from_pod(A, packet), ACTION_TUNNEL, bed, "plm_vxlan")


def test_a_device_without_ethernet_is_left_to_the_stack(bed: ProgramBed) -> None:
    key = struct.pack("=I", bed.ifindex["ens0"])
    device = layout.Device.unpack(bed.maps["devices"].lookup(key) or b"")
    bed.maps["devices"].update(key, replace(device, flags=device.flags | layout.DEVICE_NO_ETHERNET).pack())
    passed(bed.from_pod(A, ip(A.address4, WORLD4) / udp(1, 2)), mark=layout.mark_of(A.identity))


@pytest.mark.parametrize("family", [4, 6])
def test_without_a_gateways_address_nobody_is_told(family: int) -> None:
    with ProgramBed(ALL_ON, ("pod",), gateway4=layout.NO_ADDRESS, gateway6=layout.NO_ADDRESS) as bed:
        dropped(bed.from_pod(A, ip(A.address(family), B.address(family), ttl=1) / udp(1, 2, bytes(64))), DROP_TTL)
