"""Random, cut and bent packets by the thousand: a program says one of its words, sends nothing on that it should not,
and counts each packet once.

The model knows little and is sure of it: a packet that is sent on is whole, comes from the pod's own address, and goes
where policy lets it.
"""

from __future__ import annotations

import random
import struct
from typing import Final

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Ether

from datapath import layout
from datapath.loader.programs import SkbContext
from datapath.policy.model import Direction, EndpointPolicy, Enforcement, Rule, Verdict
from tests.datapath.programs.bed import (
    HOST_MAC,
    NODE4,
    NODE6,
    REMOTE4,
    ROUTER_MAC,
    TUNNEL6,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
)
from tests.datapath.programs.packets import echo, ip, sctp, tcp, udp, unreachable

pytestmark = pytest.mark.root
RUNS: Final = 4000
PASS, DROP, REDIRECT = 0xFFFFFFFF, 2, 7
DENIED_PORT: Final = 666
SMALLEST: Final = {0x0800: 34, 0x86DD: 54}  # what the kernel's test runs want


def seeds() -> list[bytes]:
    """Valid packets of a's, of every kind."""
    packets = []
    for family, world in ((4, WORLD4), (6, WORLD6)):
        a, b = A.address(family), B.address(family)
        for to in (b, world, NODE6 if family == 6 else NODE4):
            packets += [
                ip(a, to) / tcp(1000, 80), ip(a, to) / tcp(1000, 80, "A", bytes(30)), ip(a, to) / udp(1000, 53),
                ip(a, to) / sctp(1, 2), ip(a, to) / echo(family, 7), ip(a, to) / udp(1000, DENIED_PORT),
                ip(a, to) / unreachable(ip(to, a) / udp(53, 1000), family),
            ]  # fmt: skip
    packets += [
        IP(src=A.address4, dst=WORLD4, options=[IPOption_NOP()] * 8) / tcp(1, 2),
        IP(src=A.address4, dst=B.address4, flags="MF", id=5) / udp(1000, 53, bytes(8)),
        IP(src=A.address4, dst=B.address4, frag=3, id=5, proto=17) / bytes(16),
        IPv6(src=A.address6, dst=TUNNEL6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp(1000, 53),
        IPv6(src=A.address6, dst=B.address6) / IPv6ExtHdrFragment(nh=17, id=6, m=1) / bytes(UDP(dport=53)),
        ARP(hwsrc=A.mac, psrc=A.address4, pdst="169.254.1.1"),
    ]
    return [bytes(Ether(src=A.mac, dst=HOST_MAC) / one) for one in packets]


def bent(chance: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3, 8])):
        how = chance.randrange(6)
        place = chance.randrange(12, min(len(data), 90)) if len(data) > 12 else 0
        if how == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            data[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif how == 2:
            del data[chance.randrange(14, len(data) + 1) :]
        elif how == 3:
            data += chance.randbytes(chance.randrange(1, 60))
        elif how == 4 and len(data) > 40:
            length = chance.randrange(1, 16)
            data[place : place + length] = chance.randbytes(length)
        elif how == 5 and place + 2 <= len(data):
            struct.pack_into("!H", data, place, chance.choice([0, 1, 19, 20, 39, 40, 1500, 65535]))
    return bytes(data)


def refusable(frame: bytes) -> str:
    """Why a must not send this on; empty if nothing is known against it."""
    kind = int.from_bytes(frame[12:14], "big")
    if frame[6:12] != layout.mac_bytes(A.mac):
        return "another MAC"
    if kind == 0x0806:
        return ""
    if kind == 0x0800:
        header = (frame[14] & 15) * 4
        total = int.from_bytes(frame[16:18], "big")
        if frame[14] >> 4 != 4 or header < 20 or total < header or total > len(frame) - 14:
            return "lengths"
        if frame[26:30] != layout.address_bytes(A.address4)[12:]:
            return "another address"
        if frame[30] >> 4 == 14:
            return "multicast"
        protocol, offset = frame[23], int.from_bytes(frame[20:22], "big") & 0x1FFF
        return "" if offset else _transport(frame, 14 + header, protocol)
    if kind == 0x86DD:
        if frame[14] >> 4 != 6 or int.from_bytes(frame[18:20], "big") + 54 > len(frame):
            return "lengths"
        if frame[20] == 58 and 130 <= frame[54] <= 143:
            return ""  # neighbour discovery: its answer goes back to the pod
        if frame[22:38] != layout.address_bytes(A.address6):
            return "another address"
        if frame[38] == 0xFF:
            return "multicast"
        return _transport(frame, 54, frame[20])
    return "another protocol"


def _transport(frame: bytes, at: int, protocol: int) -> str:
    if protocol == 6 and (len(frame) < at + 20 or frame[at + 12] >> 4 < 5):
        return "a TCP header that is none"
    if protocol == 17 and len(frame) >= at + 4 and int.from_bytes(frame[at + 2 : at + 4], "big") == DENIED_PORT:
        return "policy"
    return "cut short" if protocol in (17, 132, 136, 1, 58) and len(frame) < at + 8 else ""


@pytest.mark.parametrize("seed", [1, 2])
def test_from_pod(bed: ProgramBed, seed: int) -> None:
    chance = random.Random(seed)
    out = Direction.EGRESS
    rules = {Rule(1, out, Verdict.ALLOW), Rule(2, out, Verdict.DENY, 0, 17, DENIED_PORT, DENIED_PORT)}
    bed.set_policy(A, EndpointPolicy(frozenset(rules), Enforcement(egress=True)))
    bed.set_runtime(trace_every=0, flow_events=0, verdict_events=0, drop_events_per_tick=0)
    program, valid = bed.programs["from_pod"], seeds()
    context = SkbContext(ifindex=bed.ifindex["plma"]).pack()
    before, runs = bed.counters(), 0
    seen: dict[int, int] = {}
    for number in range(RUNS):
        if number % 500 == 0:
            bed.new_generation()
            bed.set_runtime(trace_every=0, flow_events=0, verdict_events=0, drop_events_per_tick=0)
        frame = bent(chance, chance.choice(valid))
        if len(frame) < SMALLEST.get(int.from_bytes(frame[12:14], "big"), 14 if len(frame) < 14 else 15):
            continue
        done = program.test_run(frame, context=context)
        runs += 1
        seen[done.retval] = seen.get(done.retval, 0) + 1
        assert done.retval in (PASS, DROP, REDIRECT), frame.hex()
        why = refusable(frame)
        if why and done.retval != DROP:
            # What may go is only an answer to the pod itself: an ICMP error, or one about its neighbours.
            assert done.retval == REDIRECT, f"{why}: {frame.hex()}"
            assert SkbContext.unpack(done.context).mark == layout.MARK_DONE, f"{why}: {frame.hex()}"
            assert done.packet[:6] == frame[6:12], f"{why}: {frame.hex()}"
    after = bed.counters()
    assert sum(after) - sum(before) == runs
    assert len(seen) == 3
    assert min(seen.values()) > 50, "the mix has some of each"


@pytest.mark.parametrize("program", ["to_pod", "from_device", "to_device", "from_overlay", "to_overlay"])
def test_the_others(bed: ProgramBed, program: str) -> None:
    chance = random.Random(program)
    hook = ["to_pod", "from_device", "to_device", "from_overlay", "to_overlay"].index(program) + 1
    device = {"to_pod": "plma"}.get(program, "plm_vxlan" if "overlay" in program else "ens0")
    bed.set_runtime(trace_every=0, flow_events=0, verdict_events=0, drop_events_per_tick=0)
    valid = seeds() + [
        bytes(Ether(src=ROUTER_MAC, dst=HOST_MAC) / one)
        for one in (
            ip(WORLD4, A.address4) / tcp(80, 1000), ip(WORLD6, A.address6) / udp(53, 1000),
            ip(REMOTE4, A.address4) / echo(4, 1), ip(WORLD4, NODE4) / udp(53, 40001),
            ip(WORLD4, NODE4) / unreachable(ip(NODE4, WORLD4) / udp(40001, 53)),
            ip(TUNNEL6, A.address6) / TCP(dport=80), ip(NODE4, A.address4) / tcp(1, 2),
        )
    ]  # fmt: skip
    before, counted = bed.counters(), 0
    mapped = bed.from_pod(A, ip(A.address4, WORLD4) / udp(1000, 53))
    assert mapped.verdict == "redirect"
    run = bed.programs[program]
    for _ in range(RUNS // 4):
        frame = bent(chance, chance.choice(valid))
        if len(frame) < SMALLEST.get(int.from_bytes(frame[12:14], "big"), 15):
            continue
        mark = chance.choice([0, 0, layout.mark_of(A.identity), layout.mark_of(7, layout.MARK_DONE)])
        done = run.test_run(frame, context=SkbContext(ifindex=bed.ifindex[device], mark=mark).pack())
        assert done.retval in (PASS, DROP, REDIRECT), frame.hex()
        assert done.retval != REDIRECT or program.startswith("from"), frame.hex()
        counted += done.retval in (DROP, REDIRECT)
    after = bed.counters()
    at = hook * layout.DROP_REASONS
    here = [now - then for now, then in zip(after, before, strict=True)][at : at + layout.DROP_REASONS]
    assert sum(here) >= counted, "what was dropped or sent on was counted"
