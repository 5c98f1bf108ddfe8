"""Decisions made a second time: what is still so is not asked again, and what has changed meanwhile is seen."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from scapy.layers.inet import UDP
from scapy.layers.sctp import SCTP
from scapy.packet import Packet

from datapath import layout
from datapath.layout import ACTION_DEVICE, ACTION_POD, EVENT_FLOW_NEW, EVENT_VERDICT, HOOK_FROM_DEVICE, HOOK_TO_POD
from datapath.policy.model import Direction, EndpointPolicy, Enforcement, Rule, Verdict
from tests.datapath.programs.bed import (
    NODE4,
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
from tests.datapath.programs.packets import assert_right, ip, sctp, tcp, udp

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def ends(family: int) -> tuple[str, str]:
    """Of the world and of the node."""
    return (WORLD6, NODE6) if family == 6 else (WORLD4, NODE4)


def aged(bed: ProgramBed, packet: Packet) -> None:
    """The flow's decisions are due to be made again; its generation has not ended."""
    flow = bed.flow(packet)
    assert flow is not None
    old = (bed.clock.now_j() - bed.config.recheck_j - 1) & 0xFFFFFFFF
    bed.change_flow(
        packet, from_low=replace(flow.from_low, checked_j=old), from_high=replace(flow.from_high, checked_j=old)
    )


def leaves(bed: ProgramBed, family: int, payload: Packet) -> Run:
    return forwarded(bed.from_pod(A, ip(A.address(family), ends(family)[0]) / payload), ACTION_DEVICE, bed, "ens0")


# ---- policy ----


@pytest.mark.parametrize(
    ("payload", "asked"), [(tcp(1000, 80, "A"), 0), (tcp(1000, 80, "SA"), 0), (tcp(1000, 80, "S"), 1), (udp(1, 2), 0)]
)
@pytest.mark.parametrize("way", ["from pod", "to pod", "from device"])
def test_policy_is_asked_again_of_what_begins_only(bed: ProgramBed, way: str, payload: Packet, asked: int) -> None:
    rules = frozenset({Rule(1, Direction.EGRESS, Verdict.ALLOW), Rule(2, Direction.INGRESS, Verdict.ALLOW)})
    bed.set_policy(A, EndpointPolicy(rules, Enforcement(ingress=True, egress=True)))
    packet = (ip(A.address4, REMOTE4) if way == "from pod" else ip(REMOTE4, A.address4)) / payload.copy()

    def run() -> Run:
        if way == "from pod":
            return forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0")
        if way == "to pod":
            return passed(bed.to_pod(A, packet), HOOK_TO_POD)
        return forwarded(bed.from_device(packet), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)

    assert len(run().told(EVENT_VERDICT)) == 1
    aged(bed, packet)
    assert len(run().told(EVENT_VERDICT)) == asked


def test_verdicts_are_told_on_demand_and_audits_always(bed: ProgramBed) -> None:
    for audit, told in ((False, 0), (True, 1)):
        rules = frozenset() if audit else frozenset({Rule(1, Direction.EGRESS, Verdict.ALLOW)})
        bed.set_policy(A, EndpointPolicy(rules, Enforcement(egress=True, audit_egress=audit)))
        bed.set_runtime(verdict_events=0)
        run = bed.from_pod(A, ip(A.address4, B.address4) / udp(1000 + audit, 53))
        assert len(forwarded(run, ACTION_POD, bed, "plmb").told(EVENT_VERDICT)) == told


# ---- by the stack ----


@FAMILIES
def test_the_nodes_answer_to_a_pod(bed: ProgramBed, family: int) -> None:
    """No policy is asked of it."""
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(ingress=True)))
    remote = REMOTE6 if family == 6 else REMOTE4
    packet = ip(A.address(family), remote) / udp(1000, 53)
    forwarded(bed.from_pod(A, packet), ACTION_DEVICE, bed, "ens0")
    run = passed(bed.to_pod(A, ip(remote, A.address(family)) / udp(53, 1000)), HOOK_TO_POD)
    assert run.told(EVENT_VERDICT) == []


def test_a_mark_speaks_for_what_was_decided_and_allowed_only(bed: ProgramBed) -> None:
    """from_pod gave it to the stack; at to_pod its decision is of another generation, or was a refusal."""
    mark = layout.mark_of(A.identity)
    packet = ip(A.address4, B.address4) / udp(1000, 53)
    bed.set_pod(B, mtu=1280)
    passed(bed.from_pod(A, ip(A.address4, B.address4) / udp(1000, 53, bytes(1300))), mark=mark)
    bed.set_policy(B, EndpointPolicy(enforcement=Enforcement(ingress=True)))
    dropped(bed.to_pod(B, packet, mark=mark), layout.DROP_POLICY_INGRESS, HOOK_TO_POD)
    denied = ip(A.address4, B.address4) / udp(1001, 53)
    dropped(bed.from_pod(A, denied), layout.DROP_POLICY_INGRESS)
    dropped(bed.to_pod(B, denied, mark=mark), layout.DROP_POLICY_INGRESS, HOOK_TO_POD)


def test_what_is_cut_by_the_stack_keeps_the_time_that_its_pod_gave_it(bed: ProgramBed) -> None:
    """Too big, but may be cut: from_pod has followed the flow, so to_device does not."""
    packet = ip(A.address4, SMALL4) / udp(1000, 53, bytes(1400))
    passed(bed.from_pod(A, packet))
    before = bed.flow(packet)
    assert before is not None
    bed.change_flow(packet, expires_j=before.expires_j - 5)
    run = passed(bed.to_device(ip(A.address4, SMALL4) / udp(1000, 53, bytes(100))), layout.HOOK_TO_DEVICE)
    assert run.ip.src == NODE4
    after = bed.flow(packet)
    assert after is not None
    assert after.expires_j == before.expires_j - 5


@pytest.mark.parametrize(
    ("source", "destination"),
    [(A.address4, B.address4), (A.address6, NODE6), ("192.0.2.50", WORLD4), (NODE4, WORLD4)],
)
def test_what_the_stack_sends_out_as_it_is(bed: ProgramBed, source: str, destination: str) -> None:
    untouched(bed.to_device(ip(source, destination) / udp(1000, 53)))


# ---- masquerade ----


@FAMILIES
def test_a_flow_that_gets_a_mapping_late(bed: ProgramBed, family: int) -> None:
    """The world sent to the pod itself first; then its answer to the node's address is of the same flow."""
    world, node = ends(family)
    port = leaves(bed, family, udp(1000, 53)).ip[UDP].sport
    bed.maps["flows"].clear()
    direct = ip(world, A.address(family)) / udp(53, 1000)
    forwarded(bed.from_device(direct), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    bed.new_generation()
    run = forwarded(bed.from_device(ip(world, node) / udp(53, port)), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert run.told(EVENT_FLOW_NEW) == []
    flow = bed.flow(direct)
    assert flow is not None
    assert flow.flags & layout.FLOW_NAT


@FAMILIES
def test_the_way_out_was_forgotten_when_the_answer_comes(bed: ProgramBed, family: int) -> None:
    world, node = ends(family)
    port = leaves(bed, family, udp(1000, 53)).ip[UDP].sport
    [out] = [key for key in bed.nat() if key.direction == layout.NAT_OUT]
    bed.maps["nat"].delete(out.pack())
    answer = ip(world, node) / udp(53, port)
    forwarded(bed.from_device(answer), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert len(bed.nat()) == 1


def test_a_fixed_port_is_found_again_by_its_way_back(bed: ProgramBed) -> None:
    packet = ip(A.address4, WORLD4) / sctp(5000, 3868)
    assert bed.from_pod(A, packet).ip[SCTP].sport == 5000
    [out] = [key for key in bed.nat() if key.direction == layout.NAT_OUT]
    bed.maps["nat"].delete(out.pack())
    bed.new_generation()
    run = bed.from_pod(A, packet)
    assert (run.verdict, run.ip.src) == ("redirect", NODE4)
    assert len(bed.nat()) == 2
    # The same pod's other port is another flow's.
    [back] = [key for key in bed.nat() if key.direction == layout.NAT_IN]
    bed.maps["nat"].update(back.pack(), replace(bed.nat()[back], port=5001).pack())
    bed.maps["nat"].delete(out.pack())
    bed.new_generation()
    dropped(bed.from_pod(A, packet), layout.DROP_NAT_NO_PORT)


@FAMILIES
def test_the_nodes_address_changes(bed: ProgramBed, family: int) -> None:
    leaves(bed, family, udp(1000, 53))
    new = "192.0.2.201" if family == 4 else "2001:db8::201"
    key = struct.pack("=I", bed.ifindex["ens0"])
    device = layout.Device.unpack(bed.maps["devices"].lookup(key) or b"")
    raw = layout.address_bytes(new)
    changed = replace(device, masquerade6=raw) if family == 6 else replace(device, masquerade4=raw)
    bed.maps["devices"].update(key, changed.pack())
    bed.new_generation()
    run = leaves(bed, family, udp(1000, 53))
    assert run.ip.src == new
    assert_right(run.ip)
    back = bed.from_device(ip(ends(family)[0], new) / udp(53, run.ip[UDP].sport))
    assert forwarded(back, ACTION_POD, bed, "plma", HOOK_FROM_DEVICE).ip.dst == A.address(family)


@FAMILIES
@pytest.mark.parametrize("lost", ["time", "to another pod", "to another port"])
def test_a_mapping_that_is_not_the_flows_any_more(bed: ProgramBed, family: int, lost: str) -> None:
    before = leaves(bed, family, udp(1000, 53)).ip[UDP].sport
    for key, entry in bed.nat().items():
        if lost == "time":
            bed.maps["nat"].update(key.pack(), replace(entry, expires_j=bed.clock.now_j() - 1 & 0xFFFFFFFF).pack())
        elif key.direction == layout.NAT_IN:
            taken = (
                replace(entry, port=1001)
                if lost == "to another port"
                else replace(entry, address=layout.address_bytes(B.address(family)))
            )
            bed.maps["nat"].update(key.pack(), taken.pack())
    bed.new_generation()
    now = leaves(bed, family, udp(1000, 53)).ip[UDP].sport
    assert lost == "time" or now != before, "the other keeps it"
    back = bed.from_device(ip(*ends(family)) / udp(53, now))
    run = forwarded(back, ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert (run.ip.dst, run.ip[UDP].dport) == (A.address(family), 1000)


def test_ports_above_the_range_are_the_nodes(bed: ProgramBed) -> None:
    leaves(bed, 4, udp(1000, 53))
    untouched(bed.from_device(ip(WORLD4, NODE4) / udp(53, 50000)))
