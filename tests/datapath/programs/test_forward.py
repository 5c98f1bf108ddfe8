"""Where packets go, with which link-layer addresses and marks, and what is told to senders of those that go nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6PacketTooBig, ICMPv6TimeExceeded
from scapy.packet import Raw

from datapath import layout
from datapath.layout import (
    ACTION_DEVICE,
    ACTION_DIRECT,
    ACTION_NEIGHBOUR,
    ACTION_POD,
    ACTION_TUNNEL,
    DROP_BLACKHOLE,
    DROP_MTU,
    DROP_NO_TUNNEL,
    DROP_TTL,
    HOOK_FROM_DEVICE,
    HOOK_TO_POD,
)
from tests.datapath.programs.bed import (
    ALL_ON,
    BARE4,
    BLACKHOLE4,
    BLACKHOLE6,
    DIRECT4,
    DIRECT6,
    ENS0_MAC,
    GATEWAY4,
    GATEWAY6,
    HOST_MAC,
    LOST4,
    LOST6,
    NODE4,
    NODE6,
    OTHER_MAC,
    OVERLAY_MAC,
    REMOTE4,
    REMOTE6,
    ROUTER_MAC,
    SERVICE4,
    SERVICE6,
    SILENT4,
    SILENT6,
    SMALL4,
    SMALL6,
    TUNNEL4,
    TUNNEL6,
    UNREACHABLE4,
    UNREACHABLE6,
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
from tests.datapath.programs.packets import assert_right, ip, quoted, tcp, udp, unreachable

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def source_for(address: str) -> str:
    return A.address6 if ":" in address else A.address4


ROWS = [
    # to whom, action, device, MACs (destination, source)
    (B.address4, ACTION_POD, "plmb", (B.mac, HOST_MAC)),
    (B.address6, ACTION_POD, "plmb", (B.mac, HOST_MAC)),
    (WORLD4, ACTION_DEVICE, "ens0", (ROUTER_MAC, ENS0_MAC)),
    (WORLD6, ACTION_DEVICE, "ens0", (ROUTER_MAC, ENS0_MAC)),
    (REMOTE4, ACTION_DEVICE, "ens0", (ROUTER_MAC, ENS0_MAC)),
    (REMOTE6, ACTION_DEVICE, "ens0", (ROUTER_MAC, ENS0_MAC)),
    (SILENT4, ACTION_NEIGHBOUR, "ens0", None),
    (SILENT6, ACTION_NEIGHBOUR, "ens0", None),
    (TUNNEL4, ACTION_TUNNEL, "plm_vxlan", (OVERLAY_MAC, HOST_MAC)),
    (TUNNEL6, ACTION_TUNNEL, "plm_vxlan", (OVERLAY_MAC, HOST_MAC)),
    (DIRECT4, ACTION_DEVICE, "ens0", (OTHER_MAC, ENS0_MAC)),
]


@pytest.mark.parametrize(("address", "action", "device", "macs"), ROWS)
def test_ways(bed: ProgramBed, address: str, action: int, device: str, macs: tuple[str, str] | None) -> None:
    packet = ip(source_for(address), address, ttl=9) / tcp(1000, 80)
    for _ in range(2):  # decided, and as it is remembered
        run = forwarded(bed.from_pod(A, packet), action, bed, device)
        assert (run.ip.hlim if ":" in address else run.ip.ttl) == 8
        if macs:
            assert (run.packet.dst, run.packet.src) == macs
        assert run.mark == (0 if action == ACTION_POD else layout.mark_of(A.identity, layout.MARK_DONE))
    assert bed.path(packet).byte_count == 2 * len(bytes(packet)) + 28


def test_a_node_reached_by_an_unresolved_next_hop(bed: ProgramBed) -> None:
    target = layout.Target(kind=layout.TARGET_REMOTE_POD, flags=layout.TARGET_DIRECT, node=3)
    for number, hop in ((3, "192.0.2.98"), (5, "2001:db8::98")):
        bed.maps["nodes"].update(number.to_bytes(4, "little"), layout.Node(layout.address_bytes(hop)).pack())
        address = DIRECT6 if ":" in hop else DIRECT4
        bed.set_address(address, replace(target, node=number))
        run = bed.from_pod(A, ip(source_for(address), address) / udp(1000, 53))
        forwarded(run, ACTION_DIRECT, bed, "ens0")
        assert bed.path(ip(source_for(address), address) / udp(1000, 53)).node == number


@pytest.mark.parametrize("address", [NODE4, NODE6, SERVICE4, SERVICE6, UNREACHABLE4, UNREACHABLE6, BARE4, "192.0.3.1"])
def test_what_the_stack_gets(bed: ProgramBed, address: str) -> None:
    packet = ip(source_for(address), address, ttl=1) / tcp(1000, 80)
    for _ in range(2):
        run = passed(bed.from_pod(A, packet), mark=layout.mark_of(A.identity))
        assert run.ip == packet.__class__(bytes(packet)), "as it was: the stack counts hops and sizes itself"


def test_identities_of_24_bits_fit_into_marks(bed: ProgramBed) -> None:
    run = passed(bed.from_pod(B, ip(B.address4, NODE4) / tcp(1000, 80)))
    assert run.mark == 0x10020500 | 0x0A
    assert layout.identity_of(run.mark) == B.identity


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (BLACKHOLE4, DROP_BLACKHOLE),
        (BLACKHOLE6, DROP_BLACKHOLE),
        (LOST4, DROP_NO_TUNNEL),
        (LOST6, DROP_NO_TUNNEL),
    ],
)
def test_ways_that_lead_nowhere(bed: ProgramBed, address: str, reason: int) -> None:
    for _ in range(2):
        dropped(bed.from_pod(A, ip(source_for(address), address) / udp(1000, 53)), reason)


@pytest.mark.parametrize("flag", [layout.TARGET_TUNNEL, layout.TARGET_DIRECT])
def test_a_node_whose_address_is_not_known(bed: ProgramBed, flag: int) -> None:
    bed.set_address(TUNNEL4, layout.Target(kind=layout.TARGET_REMOTE_POD, flags=flag, node=4))
    for _ in range(2):
        run = bed.from_pod(A, ip(A.address4, TUNNEL4) / udp(1000, 53))
        assert (run.verdict, run.reason) == ("drop", DROP_NO_TUNNEL)


def test_without_an_overlay() -> None:
    with ProgramBed(ALL_ON, ("pod",), tunnel_ifindex=0) as bed:
        dropped(bed.from_pod(A, ip(A.address4, TUNNEL4) / udp(1000, 53)), DROP_NO_TUNNEL)


# ---- hops ----


@FAMILIES
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("where", ["pod", "world"])
def test_hops_are_used_up(bed: ProgramBed, family: int, left: int, where: str) -> None:
    to = B.address(family) if where == "pod" else (WORLD6 if family == 6 else WORLD4)
    packet = ip(A.address(family), to, ttl=left) / udp(1000, 53, bytes(range(64)))
    run = dropped(bed.from_pod(A, packet), DROP_TTL, answered=True)
    assert (run.packet.dst, run.packet.src, run.mark) == (A.mac, HOST_MAC, layout.MARK_DONE)
    assert (run.ip.src, run.ip.dst) == (GATEWAY6 if family == 6 else GATEWAY4, A.address(family))
    assert_right(run.ip)
    if family == 6:
        assert run.ip[ICMPv6TimeExceeded].code == 0
    else:
        assert (run.ip[ICMP].type, run.ip[ICMP].code, run.ip.ttl) == (11, 0, 64)
    inner = quoted(run.ip)
    assert (inner.src, inner.dst) == (A.address(family), to), "as the pod knows it, not as it would have left"
    assert bytes(inner.payload)[:4] == bytes(packet.payload)[:4]


@FAMILIES
def test_from_outside_with_no_hops_left(bed: ProgramBed, family: int) -> None:
    remote = REMOTE6 if family == 6 else REMOTE4
    packet = ip(remote, A.address(family), ttl=1) / udp(1000, 53, bytes(64))
    run = dropped(bed.from_device(packet), DROP_TTL, HOOK_FROM_DEVICE, answered=True)
    assert (run.packet.dst, run.ip.dst) == (ROUTER_MAC, remote)
    assert_right(run.ip)


def test_errors_that_are_not_sent(bed: ProgramBed) -> None:
    """About errors, about fragments but the first, about what has options; and no more than the budget allows."""
    quote = ip(B.address4, A.address4) / udp(53, 1000)
    forwarded(bed.from_pod(B, quote), ACTION_POD, bed, "plma")
    error = ip(A.address4, B.address4, ttl=1) / ICMP(type=3, code=3) / Raw(bytes(quote))
    dropped(bed.from_pod(A, error), DROP_TTL)
    dropped(bed.from_pod(A, IP(src=A.address4, dst=WORLD4, ttl=1, options=[IPOption_NOP()] * 4) / udp(1, 2)), DROP_TTL)
    first = IP(src=A.address4, dst=B.address4, flags="MF", id=9) / udp(1, 2, bytes(8))
    forwarded(bed.from_pod(A, first), ACTION_POD, bed, "plmb")
    dropped(
        bed.from_pod(A, IP(src=A.address4, dst=B.address4, frag=2, id=9, proto=17, ttl=1) / Raw(b"12345678")), DROP_TTL
    )
    dropped(bed.from_pod(A, IP(src=A.address4, dst=B.address4, proto=47, ttl=1) / Raw(b"1234")), DROP_TTL)
    bed.set_runtime(icmp_errors_per_tick=0)
    dropped(bed.from_pod(A, ip(A.address4, B.address4, ttl=1) / udp(1000, 53)), DROP_TTL)


# ---- sizes ----


@FAMILIES
def test_too_big_for_the_route(bed: ProgramBed, family: int) -> None:
    to = SMALL6 if family == 6 else SMALL4
    head = 60 if family == 6 else 40
    fits = ip(A.address(family), to) / tcp(1000, 80, "A", bytes(1300 - head))
    big = ip(A.address(family), to) / tcp(1000, 80, "A", bytes(1301 - head))
    if family == 4:
        fits.flags = big.flags = "DF"
    forwarded(bed.from_pod(A, fits), ACTION_DEVICE, bed, "ens0")
    run = dropped(bed.from_pod(A, big), DROP_MTU, answered=True)
    assert_right(run.ip)
    assert (run.ip.dst, run.packet.dst) == (A.address(family), A.mac)
    if family == 6:
        assert run.ip[ICMPv6PacketTooBig].mtu == 1300
    else:
        assert (run.ip[ICMP].type, run.ip[ICMP].code, run.ip[ICMP].nexthopmtu) == (3, 4, 1300)
    inner = quoted(run.ip)
    assert (inner.src, inner.dst) == (A.address(family), to)
    assert bytes(inner.payload)[:8] == bytes(big.__class__(bytes(big)).payload)[:8]


def test_too_big_but_may_be_cut(bed: ProgramBed) -> None:
    """The stack cuts it; to_device and to_pod know that a program has decided."""
    big = ip(A.address4, SMALL4) / udp(1000, 53, bytes(1400))
    run = passed(bed.from_pod(A, big), mark=layout.mark_of(A.identity))
    assert run.ip.src == A.address4, "what is masqueraded is so behind the stack"
    bed.set_pod(B, mtu=1300)
    bed.new_generation()
    passed(bed.from_pod(A, ip(A.address4, B.address4) / udp(1000, 53, bytes(1400))), mark=layout.mark_of(A.identity))
    piece = ip(A.address4, B.address4) / udp(1000, 53, bytes(100))
    passed(bed.to_pod(B, piece, mark=layout.mark_of(A.identity)), HOOK_TO_POD)


@FAMILIES
def test_what_the_tunnel_leaves_room_for(bed: ProgramBed, family: int) -> None:
    to = TUNNEL6 if family == 6 else TUNNEL4
    head = 48 if family == 6 else 28
    forwarded(
        bed.from_pod(A, ip(A.address(family), to) / udp(1, 2, bytes(1450 - head))), ACTION_TUNNEL, bed, "plm_vxlan"
    )
    run = dropped(bed.from_pod(A, ip(A.address(family), to) / udp(1, 2, bytes(1451 - head))), DROP_MTU, answered=True)
    assert (run.ip[ICMPv6PacketTooBig].mtu if family == 6 else run.ip[ICMP].nexthopmtu) == 1450
    assert_right(run.ip)


@FAMILIES
def test_a_small_pod(bed: ProgramBed, family: int) -> None:
    bed.set_pod(B, mtu=1280)
    packet = ip(A.address(family), B.address(family)) / tcp(1000, 80, "A", bytes(1280))
    if family == 4:
        packet.flags = "DF"
    run = dropped(bed.from_pod(A, packet), DROP_MTU, answered=True)
    assert (run.ip[ICMPv6PacketTooBig].mtu if family == 6 else run.ip[ICMP].nexthopmtu) == 1280


@FAMILIES
def test_segments_count_not_the_whole_burst(bed: ProgramBed, family: int) -> None:
    """What a pod sends in one piece, and is cut by the card."""
    to = SMALL6 if family == 6 else SMALL4
    packet = ip(A.address(family), to) / tcp(1000, 80, "A", bytes(3000))
    if family == 4:
        packet.flags = "DF"
    head = 60 if family == 6 else 40
    run = bed.from_pod(A, packet, gso_size=1300 - head)
    forwarded(run, ACTION_DEVICE, bed, "ens0")
    assert run.ip[TCP].sport != 1000
    assert bed.from_pod(A, packet, gso_size=1301 - head).reason == DROP_MTU


# ---- by the kernel's routes ----


@pytest.fixture(scope="module")
def by_routes() -> Iterator[ProgramBed]:
    with ProgramBed(ALL_ON | layout.CONFIG_ENDPOINT_ROUTES) as one:
        yield one


@FAMILIES
def test_endpoint_routes(by_routes: ProgramBed, family: int) -> None:
    bed = by_routes
    bed.reset()
    packet = ip(A.address(family), B.address(family)) / udp(1000, 53)
    mark = layout.mark_of(A.identity)
    for _ in range(2):
        passed(bed.from_pod(A, packet), mark=mark)
        passed(bed.to_pod(B, packet, mark=mark), HOOK_TO_POD)
    assert bed.path(packet).packets == 2, "counted where it was decided"
    remote = REMOTE6 if family == 6 else REMOTE4
    run = passed(bed.from_device(ip(remote, B.address(family)) / udp(1000, 53)), HOOK_FROM_DEVICE)
    assert layout.identity_of(run.mark) == 0x12345
    passed(bed.to_pod(B, ip(remote, B.address(family)) / udp(1000, 53), mark=run.mark), HOOK_TO_POD)


# ---- what the stack brings to pods ----


@FAMILIES
def test_the_node_and_a_pod_talk(bed: ProgramBed, family: int) -> None:
    node = NODE6 if family == 6 else NODE4
    there, back = ip(node, A.address(family)) / tcp(5000, 80), ip(A.address(family), node) / tcp(80, 5000, "SA")
    run = passed(bed.to_pod(A, there), HOOK_TO_POD)
    assert run.frame[14:] == bytes(there)
    flow = bed.flow(there)
    assert flow is not None
    assert flow.flags & layout.FLOW_BY_STACK
    passed(bed.from_pod(A, back), mark=layout.mark_of(A.identity))
    passed(bed.to_pod(A, ip(node, A.address(family)) / tcp(5000, 80, "A")), HOOK_TO_POD)


def test_answers_to_what_came_by_the_stack_go_back_by_it(bed: ProgramBed) -> None:
    """kube-proxy's connection tracking has to see both directions of what it translated."""
    there = ip(WORLD4, A.address4) / tcp(5000, 80)
    passed(bed.to_pod(A, there), HOOK_TO_POD)
    back = ip(A.address4, WORLD4) / tcp(80, 5000, "SA")
    passed(bed.from_pod(A, back), mark=layout.mark_of(A.identity))
    between = ip(B.address4, A.address4) / tcp(5000, 80)
    passed(bed.to_pod(A, between, mark=layout.mark_of(B.identity)), HOOK_TO_POD)
    passed(bed.from_pod(A, ip(A.address4, B.address4) / tcp(80, 5000, "SA")), mark=layout.mark_of(A.identity))


def test_our_own_answers_pass(bed: ProgramBed) -> None:
    untouched(bed.to_pod(A, ip(WORLD4, A.address4) / udp(1, 2), mark=layout.MARK_DONE))
    assert len(bed.maps["flows"]) == 0


# ---- counted and told ----


def test_a_flood_is_counted_and_not_told(bed: ProgramBed) -> None:
    bed.set_runtime(drop_events_per_tick=0)
    run = bed.from_pod(A, ip(B.address4, WORLD4) / udp(1, 2))
    assert (run.verdict, run.reason, run.events) == ("drop", layout.DROP_SPOOFED_ADDRESS, ())
    bed.set_runtime()
    [event] = bed.from_pod(A, ip(B.address4, WORLD4) / udp(1, 2)).told(layout.EVENT_DROP)
    assert event.suppressed == 1
    assert (event.ifindex, event.length, event.data_length) == (bed.ifindex["plma"], 46, 46)
    assert event.data[14:46] == bytes(ip(B.address4, WORLD4) / udp(1, 2))


def test_every_so_many_packets_are_sampled(bed: ProgramBed) -> None:
    packet = ip(A.address4, B.address4) / udp(1000, 53)
    bed.set_runtime(trace_every=4)
    told = [len(bed.from_pod(A, packet).told(layout.EVENT_TRACE)) for _ in range(12)]
    assert 2 <= sum(told) <= 4, "of each CPU"
    bed.set_runtime(trace_every=0)
    assert bed.from_pod(A, packet).told(layout.EVENT_TRACE) == []


@FAMILIES
def test_what_the_stack_sent_elsewhere_is_answered_by_it(bed: ProgramBed, family: int) -> None:
    """A service whose pod is on another node, or outside: the stack translated there, and has to translate back."""
    remote, world = (REMOTE6, WORLD6) if family == 6 else (REMOTE4, WORLD4)
    mark = layout.mark_of(A.identity)
    there = ip(A.address(family), remote) / tcp(1000, 80)
    untouched(bed.to_device(there, mark=mark))
    flow = bed.flow(there)
    assert flow is not None
    assert flow.flags & layout.FLOW_BY_STACK
    back = ip(remote, A.address(family)) / tcp(80, 1000, "SA")
    for _ in range(2):
        run = passed(bed.from_device(back), HOOK_FROM_DEVICE)
        assert run.frame[14:] == bytes(back), "as it came"
    error = ip(remote, A.address(family)) / unreachable(there, family)
    passed(bed.from_device(error), HOOK_FROM_DEVICE)
    untouched(bed.to_device(ip(A.address(family), remote) / tcp(1000, 80, "A"), mark=mark))
    flow = bed.flow(there)
    assert flow is not None
    assert flow.state == layout.FLOW_OPEN
    out = passed(bed.to_device(ip(A.address(family), world) / tcp(1000, 80), mark=mark), layout.HOOK_TO_DEVICE).ip
    answer = ip(world, NODE6 if family == 6 else NODE4) / tcp(80, out[TCP].sport, "SA")
    run = passed(bed.from_device(answer), HOOK_FROM_DEVICE)
    assert (run.ip.dst, run.ip[TCP].dport) == (A.address(family), 1000), "without the node's masquerade"
    assert_right(run.ip)
