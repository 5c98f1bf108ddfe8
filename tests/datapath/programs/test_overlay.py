"""What comes by the tunnel and what the node itself sends by it. The identity that leaves by it, paths/ sees."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from datapath import layout
from datapath.layout import (
    ACTION_POD,
    DROP_CONTROL,
    DROP_ICMP_UNRELATED,
    DROP_MALFORMED,
    DROP_NO_TUNNEL,
    DROP_OVERLAY_UNKNOWN,
    DROP_POLICY_INGRESS,
    DROP_SPOOFED_ADDRESS,
    DROP_TTL,
    DROP_UNSUPPORTED,
    HOOK_FROM_DEVICE,
    HOOK_FROM_OVERLAY,
    HOOK_TO_OVERLAY,
)
from datapath.loader import objects
from datapath.policy.model import Direction, EndpointPolicy, Enforcement, Rule, Verdict
from tests.datapath.compiled import compiled
from tests.datapath.programs.bed import (
    DIRECT4,
    HOST_MAC,
    LOST4,
    NODE4,
    NODE6,
    OTHER_NODE4,
    OTHER_NODE6,
    OVERLAY_MAC,
    REMOTE4,
    REMOTE_IDENTITY,
    TUNNEL4,
    TUNNEL6,
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
from tests.datapath.programs.packets import assert_right, ip, tcp, udp, unreachable

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])
Arrive = Callable[..., Run]


@pytest.fixture(scope="module")
def entry(loaded: ProgramBed) -> Iterator[objects.Loaded]:
    with objects.load(compiled("entry"), pins=None) as one:
        one.maps["next"].update(bytes(4), struct.pack("=I", loaded.programs["from_overlay"].fd))
        loaded.programs["enter"] = one.programs["enter"]
        yield one
        del loaded.programs["enter"]


@pytest.fixture
def arrive(bed: ProgramBed, entry: objects.Loaded) -> Arrive:
    """Brings a packet by the tunnel."""

    def run(packet: Packet, *, node: str = OTHER_NODE4, identity: int = REMOTE_IDENTITY) -> Run:
        address = ipaddress.ip_address(node)
        words = address.packed if address.version == 6 else struct.pack("=I12x", int(address))
        entry.maps["far"].update(bytes(4), words + struct.pack("=II", address.version == 6, identity))
        return bed.overlay("enter", packet)

    return run


@FAMILIES
@pytest.mark.parametrize("node", [OTHER_NODE4, OTHER_NODE6])
def test_a_pod_of_another_node(bed: ProgramBed, arrive: Arrive, family: int, node: str) -> None:
    remote = TUNNEL6 if family == 6 else TUNNEL4
    packet = ip(remote, A.address(family)) / tcp(1000, 80)
    run = forwarded(arrive(packet, node=node), ACTION_POD, bed, "plma", HOOK_FROM_OVERLAY)
    assert (run.packet.dst, run.packet.src) == (A.mac, HOST_MAC)
    flow = bed.flow(packet)
    assert flow is not None
    assert {flow.low_identity, flow.high_identity} == {REMOTE_IDENTITY, A.identity}
    forwarded(
        bed.from_pod(A, ip(A.address(family), remote) / tcp(80, 1000, "SA")), layout.ACTION_TUNNEL, bed, "plm_vxlan"
    )
    forwarded(
        arrive(ip(remote, A.address(family)) / tcp(1000, 80, "A"), node=node),
        ACTION_POD,
        bed,
        "plma",
        HOOK_FROM_OVERLAY,
    )


def test_policy_by_the_identity_that_the_tunnel_tells(bed: ProgramBed, arrive: Arrive) -> None:
    """Not by what this node knows of the address: the sender's node knows its pods first."""
    rules = frozenset({Rule(1, Direction.INGRESS, Verdict.ALLOW, 0x54321)})
    bed.set_policy(A, EndpointPolicy(rules, Enforcement(ingress=True)))
    packet = ip(TUNNEL4, A.address4) / tcp(1000, 80)
    dropped(arrive(packet), DROP_POLICY_INGRESS, HOOK_FROM_OVERLAY)
    packet = ip(TUNNEL4, A.address4) / tcp(1001, 80)
    forwarded(arrive(packet, identity=0x54321), ACTION_POD, bed, "plma", HOOK_FROM_OVERLAY)


def test_another_node_is_not_this_one(bed: ProgramBed, arrive: Arrive) -> None:
    """Each calls itself the host."""
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(ingress=True)))
    run = dropped(
        arrive(ip(OTHER_NODE4, A.address4) / tcp(1, 2), identity=layout.IDENTITY_HOST), DROP_POLICY_INGRESS,
        HOOK_FROM_OVERLAY,
    )  # fmt: skip
    assert run.told(layout.EVENT_VERDICT)[0].source_identity == layout.IDENTITY_REMOTE_NODE


@FAMILIES
def test_for_the_node_itself(bed: ProgramBed, arrive: Arrive, family: int) -> None:
    packet = ip(TUNNEL6 if family == 6 else TUNNEL4, NODE6 if family == 6 else NODE4) / tcp(1000, 22)
    untouched(arrive(packet))
    error = ip(packet.src, packet.dst) / unreachable(ip(packet.dst, packet.src) / udp(1, 2), family)
    untouched(arrive(error))


@FAMILIES
def test_for_nobody_here(bed: ProgramBed, arrive: Arrive, family: int) -> None:
    remote, world = (TUNNEL6, WORLD6) if family == 6 else (TUNNEL4, WORLD4)
    for address in (world, OTHER_NODE6 if family == 6 else OTHER_NODE4):
        dropped(arrive(ip(remote, address) / tcp(1, 2)), DROP_OVERLAY_UNKNOWN, HOOK_FROM_OVERLAY)
    error = unreachable(ip(world, remote) / udp(1, 2), family)
    dropped(arrive(ip(remote, world) / error), DROP_OVERLAY_UNKNOWN, HOOK_FROM_OVERLAY)
    about_a_pod = unreachable(ip(A.address(family), remote) / udp(1, 2), family)
    dropped(arrive(ip(remote, A.address(family)) / about_a_pod), DROP_ICMP_UNRELATED, HOOK_FROM_OVERLAY)


def test_from_a_node_that_is_not_known(bed: ProgramBed, arrive: Arrive) -> None:
    packet = ip(TUNNEL4, A.address4) / tcp(1000, 80)
    for node in ("192.0.2.66", WORLD6, REMOTE4, NODE4):
        dropped(arrive(packet, node=node), DROP_OVERLAY_UNKNOWN, HOOK_FROM_OVERLAY)
    dropped(bed.overlay("from_overlay", packet), DROP_OVERLAY_UNKNOWN, HOOK_FROM_OVERLAY)  # not by a tunnel at all


def test_sources_that_are_here(bed: ProgramBed, arrive: Arrive) -> None:
    for source in (B.address4, NODE4):
        dropped(arrive(ip(source, A.address4) / udp(1, 2)), DROP_SPOOFED_ADDRESS, HOOK_FROM_OVERLAY)
        run = bed.from_device(ip(source, A.address4) / udp(1, 2))
        dropped(run, DROP_SPOOFED_ADDRESS, HOOK_FROM_DEVICE)


@FAMILIES
def test_who_claims_a_tunnelled_address_by_a_device(bed: ProgramBed, family: int) -> None:
    """It has the identity of the address's owner: nodes that are moved to the tunnel one by one, or back, send so.
    Nothing here proves who sent it (docs/datapath.md)."""
    rules = frozenset({Rule(1, Direction.INGRESS, Verdict.ALLOW, REMOTE_IDENTITY)})
    bed.set_policy(A, EndpointPolicy(rules, Enforcement(ingress=True)))
    tunnelled, world = (TUNNEL6, WORLD6) if family == 6 else (TUNNEL4, WORLD4)
    packet = ip(tunnelled, A.address(family)) / tcp(1000, 80)
    run = forwarded(bed.from_device(packet), ACTION_POD, bed, "plma", HOOK_FROM_DEVICE)
    assert run.told(layout.EVENT_VERDICT)[0].source_identity == REMOTE_IDENTITY
    answer = ip(A.address(family), tunnelled) / tcp(80, 1000, "SA")
    forwarded(bed.from_pod(A, answer), layout.ACTION_TUNNEL, bed, "plm_vxlan")
    dropped(bed.from_device(ip(world, A.address(family)) / tcp(1000, 80)), DROP_POLICY_INGRESS, HOOK_FROM_DEVICE)
    bed.set_policy(A, EndpointPolicy(enforcement=Enforcement(ingress=True)))
    dropped(bed.from_device(packet), DROP_POLICY_INGRESS, HOOK_FROM_DEVICE)


@FAMILIES
@pytest.mark.parametrize("node", [OTHER_NODE4, OTHER_NODE6])
def test_hops_used_up_behind_the_tunnel(bed: ProgramBed, arrive: Arrive, family: int, node: str) -> None:
    remote = TUNNEL6 if family == 6 else TUNNEL4
    packet = ip(remote, A.address(family), ttl=1) / udp(1, 2, bytes(64))
    run = dropped(arrive(packet, node=node), DROP_TTL, HOOK_FROM_OVERLAY, answered=True)
    assert_right(run.ip)
    assert run.ip.dst == remote


@pytest.mark.parametrize("program", ["from_overlay", "to_overlay"])
def test_what_a_tunnel_is_not_for(bed: ProgramBed, program: str) -> None:
    hook = HOOK_FROM_OVERLAY if program == "from_overlay" else HOOK_TO_OVERLAY
    dropped(bed.overlay(program, ARP(pdst=TUNNEL4)), DROP_CONTROL, hook)
    dropped(bed.overlay(program, IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NS(tgt=TUNNEL6)), DROP_CONTROL, hook)
    frame = Ether(src=OVERLAY_MAC, dst=OVERLAY_MAC, type=0x88CC) / bytes(60)
    dropped(bed.run(program, frame, device="plm_vxlan"), DROP_UNSUPPORTED, hook)
    short = bytes(Ether(src=OVERLAY_MAC, dst=OVERLAY_MAC) / ip(TUNNEL4, A.address4) / tcp(1, 2))[:44]
    dropped(bed.run(program, short, device="plm_vxlan"), DROP_MALFORMED, hook)


# ---- what the stack sends by it ----


@pytest.mark.parametrize("address", [TUNNEL4, TUNNEL6])
def test_the_node_talks_with_pods_of_others(bed: ProgramBed, address: str) -> None:
    packet = ip(NODE6 if ":" in address else NODE4, address) / tcp(1000, 80)
    run = passed(bed.overlay("to_overlay", packet), HOOK_TO_OVERLAY)
    assert run.mark == layout.mark_of(layout.IDENTITY_HOST, layout.MARK_DONE)
    marked = passed(bed.overlay("to_overlay", packet, mark=layout.mark_of(B.identity)), HOOK_TO_OVERLAY)
    assert marked.mark == layout.mark_of(B.identity, layout.MARK_DONE)
    done = layout.mark_of(A.identity, layout.MARK_DONE)
    assert untouched(bed.overlay("to_overlay", packet, mark=done)).mark == done


@FAMILIES
def test_what_the_stack_sends_for_pods(bed: ProgramBed, family: int) -> None:
    """An error goes as it is; what cannot be followed does not go."""
    remote = TUNNEL6 if family == 6 else TUNNEL4
    error = ip(A.address(family), remote) / unreachable(ip(remote, A.address(family)) / udp(1, 2), family)
    run = passed(bed.overlay("to_overlay", error, mark=layout.mark_of(A.identity)), HOOK_TO_OVERLAY)
    assert run.ip == error.__class__(bytes(error))
    field = {"proto": 17, "frag": 3}
    later = IPv6ExtHdrFragment(nh=17, offset=3) if family == 6 else Raw(b"")
    packet = ip(A.address(family), remote, **({} if family == 6 else field)) / later / Raw(b"later")
    dropped(bed.overlay("to_overlay", packet), layout.DROP_FRAGMENT_UNKNOWN, HOOK_TO_OVERLAY)


@pytest.mark.parametrize("address", [WORLD4, LOST4, REMOTE4, A.address4, NODE4, DIRECT4])
def test_whom_the_tunnel_does_not_reach(bed: ProgramBed, address: str) -> None:
    dropped(bed.overlay("to_overlay", ip(NODE4, address) / tcp(1, 2)), DROP_NO_TUNNEL, HOOK_TO_OVERLAY)


def test_a_node_without_an_address(bed: ProgramBed) -> None:
    bed.set_address(TUNNEL4, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=layout.TARGET_TUNNEL, node=4))
    dropped(bed.overlay("to_overlay", ip(NODE4, TUNNEL4) / tcp(1, 2)), DROP_NO_TUNNEL, HOOK_TO_OVERLAY)
