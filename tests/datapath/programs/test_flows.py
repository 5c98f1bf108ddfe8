"""Flows from their first packet to their last, and what becomes of a decision when it is not valid any more."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_POD,
    DROP_FLOW_FULL,
    DROP_POLICY_EGRESS,
    EVENT_FLOW_CLOSED,
    EVENT_FLOW_NEW,
    FLOW_CLOSING,
    FLOW_OPEN,
    FLOW_OPENING,
)
from datapath.loader import libbpf, objects
from datapath.loader.libbpf import Object
from datapath.loader.maps import HASH
from datapath.loader.programs import SkbContext
from datapath.policy.model import EndpointPolicy, Enforcement
from tests.datapath.programs.bed import WORLD4, WORLD6, A, B, Pod, ProgramBed, dropped, forwarded
from tests.datapath.programs.packets import echo, echo_reply, ip, sctp, tcp, udp

pytestmark = pytest.mark.root


def between(one: Pod, other: Pod, family: int, payload: Packet) -> Packet:
    return ip(one.address(family), other.address(family)) / payload


def sent(bed: ProgramBed, one: Pod, other: Pod, family: int, payload: Packet) -> tuple[str, int]:
    """Sends it, and tells the state of its flow and how long it has still to live, in seconds."""
    packet = between(one, other, family, payload)
    forwarded(bed.from_pod(one, packet), ACTION_POD, bed, f"plm{other.name}")
    flow = bed.flow(packet)
    assert flow is not None
    left_j = (flow.expires_j - bed.clock.now_j()) & 0xFFFFFFFF
    return layout.STATE_WORDS[flow.state], round(left_j / bed.hz)


@pytest.mark.parametrize("family", [4, 6])
def test_a_tcp_connection(bed: ProgramBed, family: int) -> None:
    for sender, flags, state, lives_s in (
        (A, "S", "opening", 60),
        (B, "SA", "open", 8000),
        (A, "A", "open", 8000),
        (A, "PA", "open", 8000),
        (A, "FA", "open", 8000),
        (B, "A", "open", 8000),
        (B, "FA", "closing", 10),
        (A, "A", "closing", 10),
    ):
        one, other = (A, B) if sender is A else (B, A)
        ports = (1000, 80) if sender is A else (80, 1000)
        assert sent(bed, one, other, family, tcp(*ports, flags)) == (state, lives_s), flags
    packet = between(A, B, family, tcp(1000, 80))
    flow = bed.flow(packet)
    assert flow is not None
    assert (
        flow.flags & (layout.FLOW_SEEN_LOW | layout.FLOW_SEEN_HIGH | layout.FLOW_FIN_LOW | layout.FLOW_FIN_HIGH) == 15
    )
    assert bed.path(packet).packets == 5
    assert bed.path(between(B, A, family, tcp(80, 1000))).packets == 3
    assert {flow.low_identity, flow.high_identity} == {A.identity, B.identity}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("resetter", [A, B], ids=["client", "server"])
def test_a_reset_closes_at_once(bed: ProgramBed, family: int, resetter: Pod) -> None:
    sent(bed, A, B, family, tcp(1000, 80, "S"))
    sent(bed, B, A, family, tcp(80, 1000, "SA"))
    other, ports = (B, (1000, 80)) if resetter is A else (A, (80, 1000))
    assert sent(bed, resetter, other, family, tcp(*ports, "RA")) == ("closing", 10)
    assert sent(bed, resetter, other, family, tcp(*ports, "A")) == ("closing", 10), "and packets do not revive it"


def test_one_that_is_over_is_opened_again(bed: ProgramBed) -> None:
    sent(bed, A, B, 4, tcp(1000, 80, "S"))
    sent(bed, B, A, 4, tcp(80, 1000, "RA"))
    packet = between(A, B, 4, tcp(1000, 80, "S"))
    run = forwarded(bed.from_pod(A, packet), ACTION_POD, bed, "plmb")
    assert len(run.told(EVENT_FLOW_NEW)) == 1
    assert sent(bed, B, A, 4, tcp(80, 1000, "SA")) == ("open", 8000)
    flow = bed.flow(packet)
    assert flow is not None
    assert not flow.flags & (layout.FLOW_RST | layout.FLOW_TOLD_CLOSED)


def test_the_other_end_may_open_the_next_one(bed: ProgramBed) -> None:
    sent(bed, A, B, 4, tcp(1000, 80, "S"))
    sent(bed, B, A, 4, tcp(80, 1000, "RA"))
    first = bed.flow(between(A, B, 4, tcp(1000, 80)))
    assert sent(bed, B, A, 4, tcp(80, 1000, "S")) == ("opening", 60)
    second = bed.flow(between(A, B, 4, tcp(1000, 80)))
    assert first is not None
    assert second is not None
    assert (first.flags ^ second.flags) & layout.FLOW_ORIGIN_HIGH


@pytest.mark.parametrize("family", [4, 6])
def test_protocols_without_a_handshake(bed: ProgramBed, family: int) -> None:
    for there, back in (
        (udp(1000, 53), udp(53, 1000)),
        (sctp(1000, 3868), sctp(3868, 1000)),
        (echo(family, 77), echo_reply(family, 77)),
    ):
        assert sent(bed, A, B, family, there) == ("opening", 30)
        assert sent(bed, A, B, family, there) == ("opening", 30)
        assert sent(bed, B, A, family, back) == ("open", 180)
        assert sent(bed, A, B, family, there) == ("open", 180)


def test_both_ends_share_an_entry(bed: ProgramBed) -> None:
    sent(bed, A, B, 4, udp(5000, 5000))
    sent(bed, B, A, 4, udp(5000, 5000))
    assert len(bed.maps["flows"]) == 1
    sent(bed, B, A, 4, udp(5001, 5000))
    sent(bed, A, B, 4, udp(5001, 5000))
    assert len(bed.maps["flows"]) == 3


def test_a_flow_whose_time_is_over_is_a_new_one(bed: ProgramBed) -> None:
    packet = between(A, B, 4, udp(1000, 53))
    assert len(bed.from_pod(A, packet).told(EVENT_FLOW_NEW)) == 1
    assert bed.from_pod(A, packet).told(EVENT_FLOW_NEW) == []
    sent(bed, B, A, 4, udp(53, 1000))
    bed.expire(packet)
    assert len(bed.from_pod(A, packet).told(EVENT_FLOW_NEW)) == 1
    flow = bed.flow(packet)
    assert flow is not None
    assert flow.state == FLOW_OPENING


def test_new_and_closed_flows_are_told_once_and_on_demand(bed: ProgramBed) -> None:
    opened = bed.from_pod(A, between(A, B, 4, tcp(1000, 80, "S")))
    [event] = opened.told(EVENT_FLOW_NEW)
    assert (event.source_port, event.destination_port, event.action) == (1000, 80, ACTION_POD)
    assert (event.source_identity, event.destination_identity) == (A.identity, B.identity)
    closed = bed.from_pod(B, between(B, A, 4, tcp(80, 1000, "RA")))
    assert len(closed.told(EVENT_FLOW_CLOSED)) == 1
    assert bed.from_pod(A, between(A, B, 4, tcp(1000, 80, "R"))).told(EVENT_FLOW_CLOSED) == []
    bed.set_runtime(flow_events=0, trace_every=0)
    assert bed.from_pod(A, between(A, B, 4, tcp(1001, 80, "S"))).events == ()
    assert bed.from_pod(A, between(A, B, 4, tcp(1001, 80, "R"))).events == ()


# ---- decisions that are not valid any more ----


def test_a_generation_ends(bed: ProgramBed) -> None:
    packet = ip(A.address4, WORLD4) / tcp(1000, 443)
    forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0")
    bed.from_pod(A, ip(A.address4, WORLD4) / tcp(1000, 443, "A"))
    bed.set_address(WORLD4, replace(bed.target(B)))  # what the entry says is wrong now
    acknowledges = ip(A.address4, WORLD4) / tcp(1000, 443, "A")
    forwarded(bed.from_pod(A, acknowledges), ACTION_DEVICE, bed, "ens0")
    bed.new_generation()
    forwarded(bed.from_pod(A, acknowledges), ACTION_POD, bed, "plmb")
    assert bed.path(packet).packets == 4, "the entry is the same one"
    flow = bed.flow(packet)
    assert flow is not None
    assert flow.state == FLOW_OPENING


def test_next_hops_are_asked_for_again_after_a_while(bed: ProgramBed) -> None:
    packet = ip(A.address4, "198.18.3.9") / udp(1000, 53)
    bed.maps["devices"].update(
        bed.ifindex["ens1"].to_bytes(4, "little"),
        layout.Device(layout.address_bytes("192.0.3.1"), flags=layout.DEVICE_MASQUERADE4, mtu=1500).pack(),
    )
    forwarded(bed.from_pod(A, packet), layout.ACTION_NEIGHBOUR, bed, "ens1")
    bed.spaces.ip(bed.node, "neigh add 192.0.3.2 lladdr 02:00:00:00:03:02 dev ens1 nud permanent")
    try:
        forwarded(bed.from_pod(A, packet), layout.ACTION_NEIGHBOUR, bed, "ens1")
        flow = bed.flow(packet)
        assert flow is not None
        old = (bed.clock.now_j() - bed.config.recheck_j - 1) & 0xFFFFFFFF
        bed.change_flow(
            packet, from_low=replace(flow.from_low, checked_j=old), from_high=replace(flow.from_high, checked_j=old)
        )
        run = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens1")
        assert run.packet.dst == "02:00:00:00:03:02"
    finally:
        bed.spaces.ip(bed.node, "neigh del 192.0.3.2 dev ens1")


def test_a_pod_moves_to_another_device(bed: ProgramBed) -> None:
    """Its packets by the old one are not its own any more, whatever the flow remembers."""
    packet = between(A, B, 4, udp(1000, 53))
    bed.from_pod(A, packet)
    run = bed.run("from_pod", run_frame(packet), device="ens1")
    assert run.reason == layout.DROP_NO_ENDPOINT


def run_frame(packet: Packet) -> bytes:
    return bytes(Ether(src=A.mac, dst=B.mac) / packet)


def test_a_syn_asks_policy_again(bed: ProgramBed) -> None:
    sent(bed, A, B, 4, tcp(1000, 80, "S"))
    bed.policies.apply({})
    bed.set_pod(A, layout.TARGET_EGRESS_POLICY)  # no generation is raised: what is open goes on
    sent(bed, A, B, 4, tcp(1000, 80, "A"))
    dropped(bed.from_pod(A, between(A, B, 4, tcp(1000, 80, "S"))), DROP_POLICY_EGRESS)


def test_a_denied_flow_is_remembered_and_ends_with_its_generation(bed: ProgramBed) -> None:
    packet = ip(A.address6, WORLD6) / udp(1000, 53)
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(egress=True)))
    dropped(bed.from_pod(A, packet), DROP_POLICY_EGRESS)
    assert bed.path(packet).flags & layout.PATH_DENIED
    again = dropped(bed.from_pod(A, packet), DROP_POLICY_EGRESS)
    assert again.told(layout.EVENT_VERDICT) == [], "policy was not asked again"
    bed.set_policy(A, EndpointPolicy())
    run = forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0")
    assert len(run.told(EVENT_FLOW_NEW)) == 1
    assert run.ip.src != A.address6, "it is masqueraded like any other"


def test_what_was_denied_is_not_told_of_as_closed(bed: ProgramBed) -> None:
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(egress=True)))
    for flags in ("S", "A", "RA"):
        run = dropped(bed.from_pod(A, between(A, B, 4, tcp(1000, 80, flags))), DROP_POLICY_EGRESS)
        assert run.told(EVENT_FLOW_NEW) == run.told(EVENT_FLOW_CLOSED) == []


def test_the_denied_end_gives_the_other_no_right_to_answer(bed: ProgramBed) -> None:
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(egress=True, ingress=True)))
    dropped(bed.from_pod(A, between(A, B, 4, udp(1000, 53))), DROP_POLICY_EGRESS)
    dropped(bed.from_pod(B, between(B, A, 4, udp(53, 1000))), layout.DROP_POLICY_INGRESS)


def test_a_map_that_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """LRU maps make room, so this takes a kernel that is short of memory; here, a map that makes none."""

    def small(one: Object, sizes: object) -> None:
        for name, handle in one.maps():
            if name in ("flows", "nat"):
                assert not libbpf.library().bpf_map__set_type(ctypes.c_void_p(handle), HASH)
                assert not libbpf.library().bpf_map__set_max_entries(handle, 1)

    monkeypatch.setattr(objects, "_set_sizes", small)
    with ProgramBed(names=("pod",)) as bed:
        forwarded(bed.from_pod(A, between(A, B, 4, udp(1, 2))), ACTION_POD, bed, "plmb")
        dropped(bed.from_pod(A, between(A, B, 4, udp(1, 3))), DROP_FLOW_FULL)
        dropped(bed.to_pod(A, between(B, A, 4, udp(9, 9))), DROP_FLOW_FULL, layout.HOOK_TO_POD)
        dropped(bed.from_pod(A, ip(A.address4, WORLD4) / udp(1, 4)), DROP_FLOW_FULL)
        assert len(bed.nat()) == 1, "the way back was there, the way out found no room"


def test_a_full_map_forgets_the_oldest(bed: ProgramBed) -> None:
    """LRU: new flows always find room, and those in use stay."""
    kept = between(A, B, 4, udp(1, 2))
    program, context = bed.programs["from_pod"], _context(bed)
    frame, kept_frame = bytearray(run_frame(between(A, B, 4, udp(3000, 53)))), run_frame(kept)
    for port in range(3000, 3000 + 2 * bed.maps["flows"].max_entries):
        frame[34:36] = port.to_bytes(2, "big")
        program.test_run(bytes(frame), context=context)
        if port % 64 == 0:
            program.test_run(kept_frame, context=context)
    assert bed.flow(kept) is not None
    assert len(bed.maps["flows"]) <= bed.maps["flows"].max_entries


def _context(bed: ProgramBed) -> bytes:
    return SkbContext(ifindex=bed.ifindex["plma"]).pack()


def test_states_have_words() -> None:
    assert set(layout.STATE_WORDS) == {FLOW_OPENING, FLOW_OPEN, FLOW_CLOSING}
