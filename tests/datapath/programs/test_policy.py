"""Policy as the programs apply it, against what datapath/policy says in Python."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from scapy.packet import Packet

from datapath import layout
from datapath.layout import ACTION_DEVICE, ACTION_POD, DROP_POLICY_EGRESS, DROP_POLICY_INGRESS, EVENT_VERDICT
from datapath.policy import evaluate
from datapath.policy.model import Direction, EndpointPolicy, Enforcement, Peer, Rule, Verdict
from tests.datapath.programs.bed import (
    CLUSTER4,
    NODE4,
    REMOTE4,
    REMOTE6,
    REMOTE_IDENTITY,
    WORLD4,
    WORLD6,
    A,
    B,
    ProgramBed,
    Run,
    dropped,
    forwarded,
    passed,
)
from tests.datapath.programs.packets import echo, echo_reply, ip, sctp, tcp, udp

pytestmark = pytest.mark.root
IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY, AUDIT = Verdict.ALLOW, Verdict.DENY, Verdict.AUDIT
BOTH = Enforcement(ingress=True, egress=True)


def policy(*rules: Rule, enforcement: Enforcement = BOTH) -> EndpointPolicy:
    return EndpointPolicy(frozenset(rules), enforcement)


def verdicts(run: Run) -> list[tuple[int, int, int]]:
    """(which direction's policy, verdict, rule) as told."""
    return [(event.reason, event.verdict, event.rule) for event in run.told(EVENT_VERDICT)]


ROWS = [
    # story, rules, the peer's identity, protocol, port, verdict, number of the rule
    ("nothing allows it", (), 300, 6, 80, DENY, 0),
    ("all protocols of everybody", (Rule(1, OUT, ALLOW),), 300, 6, 80, ALLOW, 1),
    ("of one identity only", (Rule(1, OUT, ALLOW, 300),), 300, 17, 53, ALLOW, 1),
    ("of another identity", (Rule(1, OUT, ALLOW, 301),), 300, 17, 53, DENY, 0),
    ("another direction", (Rule(1, IN, ALLOW),), 300, 17, 53, DENY, 0),
    ("another protocol", (Rule(1, OUT, ALLOW, 0, 6),), 300, 17, 53, DENY, 0),
    ("a port", (Rule(1, OUT, ALLOW, 0, 17, 53, 53),), 300, 17, 53, ALLOW, 1),
    ("the next port", (Rule(1, OUT, ALLOW, 0, 17, 53, 53),), 300, 17, 54, DENY, 0),
    ("first of a crooked range", (Rule(1, OUT, ALLOW, 0, 6, 1001, 1999),), 300, 6, 1001, ALLOW, 1),
    ("last of a crooked range", (Rule(1, OUT, ALLOW, 0, 6, 1001, 1999),), 300, 6, 1999, ALLOW, 1),
    ("before it", (Rule(1, OUT, ALLOW, 0, 6, 1001, 1999),), 300, 6, 1000, DENY, 0),
    ("behind it", (Rule(1, OUT, ALLOW, 0, 6, 1001, 1999),), 300, 6, 2000, DENY, 0),
    ("deny of anybody wins", (Rule(1, OUT, ALLOW, 300, 6, 80, 80), Rule(2, OUT, DENY)), 300, 6, 80, DENY, 2),
    ("deny of the identity wins", (Rule(1, OUT, ALLOW), Rule(2, OUT, DENY, 300, 6)), 300, 6, 80, DENY, 2),
    ("audit of the port before allow of all", (Rule(1, OUT, ALLOW, 300), Rule(2, OUT, AUDIT, 0, 6, 80, 80)), 300, 6,
     80, AUDIT, 2),
    ("identity before anybody", (Rule(1, OUT, AUDIT, 0, 6, 80, 80), Rule(2, OUT, ALLOW, 300, 6, 80, 80)), 300, 6, 80,
     ALLOW, 2),
    ("narrow range of anybody before a wide one", (Rule(1, OUT, AUDIT, 300, 6, 1, 9000), Rule(2, OUT, ALLOW, 0, 6, 80,
     87)), 300, 6, 80, ALLOW, 2),
]  # fmt: skip


@pytest.mark.parametrize(("story", "rules", "identity", "protocol", "port", "verdict", "number"), ROWS)
def test_rules(
    bed: ProgramBed, story: str, rules: tuple[Rule, ...], identity: int, protocol: int, port: int, verdict: Verdict,
    number: int,
) -> None:  # fmt: skip
    one = policy(*rules)
    assert evaluate.verdict(one, Peer(OUT, identity, protocol, port)).verdict is verdict, story
    bed.set_policy(A, one)
    bed.set_range(
        "198.51.100.0", 24, layout.Target(kind=layout.TARGET_RANGE, flags=layout.TARGET_CLUSTER, identity=identity)
    )
    packet = ip(A.address4, "198.51.100.9") / (tcp if protocol == 6 else udp)(1000, port)
    run = bed.from_pod(A, packet)
    assert verdicts(run) == [(DROP_POLICY_EGRESS, verdict, number)], story
    if verdict is DENY:
        dropped(run, DROP_POLICY_EGRESS)
        assert run.told(layout.EVENT_DROP)[0].rule == number
        assert dropped(bed.from_pod(A, packet), DROP_POLICY_EGRESS).told(layout.EVENT_DROP)[0].rule == number
    else:
        forwarded(run, layout.ACTION_NEIGHBOUR, bed, "ens0")


@pytest.mark.parametrize("family", [4, 6])
def test_random_rules_and_packets_as_python_has_them(bed: ProgramBed, family: int) -> None:
    """Both directions of two local pods: what leaves one and is taken by the other."""
    chance = random.Random(family)
    for _ in range(12):
        policies = {pod: policy(*_random_rules(chance)) for pod in (A, B)}
        for pod, one in policies.items():
            bed.set_policy(pod, one)
        for _ in range(20):
            payload, protocol, port = _random_payload(chance, family)
            bed.maps["flows"].clear()
            run = bed.from_pod(A, ip(A.address(family), B.address(family)) / payload)
            out = evaluate.verdict(policies[A], Peer(OUT, B.identity, protocol, port))
            into = evaluate.verdict(policies[B], Peer(IN, A.identity, protocol, port))
            expected = [(DROP_POLICY_EGRESS, out.verdict, out.rule)]
            if out.verdict is not DENY:
                expected.append((DROP_POLICY_INGRESS, into.verdict, into.rule))
            assert verdicts(run) == expected
            if out.verdict is DENY:
                dropped(run, DROP_POLICY_EGRESS)
            elif into.verdict is DENY:
                dropped(run, DROP_POLICY_INGRESS)
            else:
                forwarded(run, ACTION_POD, bed, "plmb")


def _random_rules(chance: random.Random) -> list[Rule]:
    rules = []
    for number in range(1, chance.randrange(1, 12)):
        protocol = chance.choice([0, 6, 6, 17, 17, 1, 58, 132])
        first = chance.choice([0, 0, 70, 80, 1000, chance.randrange(65536)]) if protocol else 0
        last = chance.choice([first, first + 7, first + 100, 65535]) if protocol else 65535
        rules.append(
            Rule(
                number, chance.choice([IN, OUT]), chance.choice([ALLOW, ALLOW, ALLOW, DENY, AUDIT]),
                chance.choice([0, A.identity, B.identity, 300]), protocol, first, min(last, 65535),
            )
        )  # fmt: skip
    return rules


def _random_payload(chance: random.Random, family: int) -> tuple[Packet, int, int]:
    """(payload, protocol, port that rules see)."""
    port = chance.choice([0, 53, 80, 81, 87, 88, 1000, 1100, 65535, chance.randrange(65536)])
    kind = chance.choice(["tcp", "udp", "sctp", "echo", "other"])
    if kind == "tcp":
        return tcp(4000, port), 6, port
    if kind == "udp":
        return udp(4000, port), 17, port
    if kind == "sctp":
        return sctp(4000, port), 132, port
    if kind == "echo":
        return (echo(6, 9), 58, 128 << 8) if family == 6 else (echo(4, 9), 1, 8 << 8)
    return udp(4000, 0), 17, 0


@pytest.mark.parametrize("family", [4, 6])
def test_answers_are_not_asked_about(bed: ProgramBed, family: int) -> None:
    bed.set_policy(A, policy(Rule(1, OUT, ALLOW)))
    bed.set_policy(B, policy(Rule(1, IN, ALLOW)))
    for there, back in (
        (tcp(1000, 80), tcp(80, 1000, "SA")),
        (udp(1000, 53), udp(53, 1000)),
        (echo(family, 5), echo_reply(family, 5)),
    ):
        dropped(bed.from_pod(B, ip(B.address(family), A.address(family)) / back), DROP_POLICY_EGRESS)
        forwarded(bed.from_pod(A, ip(A.address(family), B.address(family)) / there), ACTION_POD, bed, "plmb")
        run = bed.from_pod(B, ip(B.address(family), A.address(family)) / back)
        forwarded(run, ACTION_POD, bed, "plma")
        assert verdicts(run) == []
        bed.new_generation()
        again = bed.from_pod(B, ip(B.address(family), A.address(family)) / back)
        assert verdicts(forwarded(again, ACTION_POD, bed, "plma")) == []


def test_policy_that_denies_what_is_open(bed: ProgramBed) -> None:
    bed.set_policy(A, policy(Rule(1, OUT, ALLOW)))
    packet = ip(A.address4, B.address4) / tcp(1000, 80, "A")
    forwarded(bed.from_pod(A, packet), ACTION_POD, bed, "plmb")
    bed.set_policy(A, policy(Rule(2, OUT, DENY)))
    dropped(bed.from_pod(A, packet), DROP_POLICY_EGRESS)
    dropped(bed.from_pod(B, ip(B.address4, A.address4) / tcp(80, 1000, "A")), DROP_POLICY_INGRESS)


def test_who_the_other_end_is(bed: ProgramBed) -> None:
    for address, identity in (
        (B.address4, B.identity),
        (NODE4, layout.IDENTITY_HOST),
        ("192.0.2.7", layout.IDENTITY_REMOTE_NODE),
        (REMOTE4, REMOTE_IDENTITY),
        (REMOTE6, REMOTE_IDENTITY),
        (CLUSTER4, 300),
        ("10.50.255.255", 300),
        ("10.51.0.0", layout.IDENTITY_WORLD),
        (WORLD4, layout.IDENTITY_WORLD),
        (WORLD6, layout.IDENTITY_WORLD),
    ):
        bed.set_policy(A, policy(Rule(9, OUT, ALLOW, identity)))
        source = A.address6 if ":" in address else A.address4
        run = bed.from_pod(A, ip(source, address) / udp(1000, 53))
        assert verdicts(run) == [(DROP_POLICY_EGRESS, ALLOW, 9)], address
        assert run.told(EVENT_VERDICT)[0].destination_identity == identity


def test_a_flag_turns_denials_into_audits(bed: ProgramBed) -> None:
    bed.set_policy(A, policy(Rule(3, OUT, DENY), enforcement=Enforcement(egress=True, audit_egress=True)))
    bed.set_policy(B, policy(enforcement=Enforcement(ingress=True, audit_ingress=True)))
    bed.set_runtime(verdict_events=0)
    run = forwarded(bed.from_pod(A, ip(A.address4, B.address4) / tcp(1, 2)), ACTION_POD, bed, "plmb")
    assert verdicts(run) == [(DROP_POLICY_EGRESS, AUDIT, 3), (DROP_POLICY_INGRESS, AUDIT, 0)], "told though not asked"


def test_directions_that_are_not_enforced(bed: ProgramBed) -> None:
    bed.set_policy(A, policy(Rule(1, OUT, DENY), enforcement=Enforcement(ingress=True)))
    run = forwarded(bed.from_pod(A, ip(A.address4, B.address4) / tcp(1, 2)), ACTION_POD, bed, "plmb")
    assert verdicts(run) == []
    dropped(bed.from_pod(B, ip(B.address4, A.address4) / tcp(3, 4)), DROP_POLICY_INGRESS)


def test_an_enforced_pod_without_a_map_may_nothing(bed: ProgramBed) -> None:
    bed.set_pod(A, layout.TARGET_EGRESS_POLICY | layout.TARGET_INGRESS_POLICY)
    dropped(bed.from_pod(A, ip(A.address4, WORLD4) / udp(1, 2)), DROP_POLICY_EGRESS)
    dropped(bed.from_device(ip(WORLD4, A.address4) / udp(1, 2)), DROP_POLICY_INGRESS, layout.HOOK_FROM_DEVICE)


@pytest.mark.parametrize("family", [4, 6])
def test_from_outside(bed: ProgramBed, family: int) -> None:
    world = WORLD6 if family == 6 else WORLD4
    bed.set_policy(A, policy(Rule(1, IN, ALLOW, layout.IDENTITY_WORLD, 6, 80, 80), Rule(2, OUT, ALLOW)))
    hook = layout.HOOK_FROM_DEVICE
    run = forwarded(bed.from_device(ip(world, A.address(family)) / tcp(1, 80)), ACTION_POD, bed, "plma", hook)
    assert verdicts(run) == [(DROP_POLICY_INGRESS, ALLOW, 1)]
    dropped(bed.from_device(ip(world, A.address(family)) / tcp(1, 81)), DROP_POLICY_INGRESS, hook)
    remote = REMOTE6 if family == 6 else REMOTE4
    dropped(bed.from_device(ip(remote, A.address(family)) / tcp(1, 80)), DROP_POLICY_INGRESS, hook)
    forwarded(bed.from_pod(A, ip(A.address(family), world) / tcp(80, 1, "SA")), ACTION_DEVICE, bed, "ens0")


def test_the_node_reaches_its_pods_whatever_policy_says(bed: ProgramBed) -> None:
    bed.set_policy(A, policy())
    hook = layout.HOOK_TO_POD
    passed(bed.to_pod(A, ip(NODE4, A.address4) / tcp(5000, 8080)), hook)
    passed(bed.from_pod(A, ip(A.address4, NODE4) / tcp(8080, 5000, "SA")))
    dropped(bed.to_pod(A, ip(WORLD4, A.address4) / tcp(5000, 8080)), DROP_POLICY_INGRESS, hook)
    dropped(bed.from_pod(A, ip(A.address4, NODE4) / tcp(9090, 22)), DROP_POLICY_EGRESS)


def test_rules_count_their_new_flows(bed: ProgramBed) -> None:
    rule = Rule(5, OUT, ALLOW, B.identity, 6, 80, 80)
    bed.set_policy(A, policy(rule))
    for port in (1000, 1001, 1001):
        bed.from_pod(A, ip(A.address4, B.address4) / tcp(port, 80, "A"))
    number = bed.maps["policies"].lookup(A.number.to_bytes(4, "little"))
    assert number is not None
    with bed.maps["flows"].by_id(int.from_bytes(number, "little")) as inner:
        [(_, value)] = list(inner.items())
    assert layout.Policy.unpack(value).packets == 2


def test_icmp_by_type(bed: ProgramBed) -> None:
    bed.set_policy(A, policy(Rule(1, OUT, ALLOW, 0, 1, 8 << 8, 8 << 8), Rule(2, OUT, ALLOW, 0, 58, 128 << 8, 128 << 8)))
    forwarded(bed.from_pod(A, ip(A.address4, B.address4) / echo(4, 1)), ACTION_POD, bed, "plmb")
    forwarded(bed.from_pod(A, ip(A.address6, B.address6) / echo(6, 1)), ACTION_POD, bed, "plmb")
    dropped(bed.from_pod(A, ip(A.address4, B.address4) / echo_reply(4, 2)), DROP_POLICY_EGRESS)


@pytest.mark.parametrize("family", [4, 6])
def test_a_verdict_is_told_once_for_a_flow(bed: ProgramBed, family: int) -> None:
    """Next hops are asked for again each second; that is no new flow."""
    bed.set_policy(A, policy(Rule(1, OUT, AUDIT), Rule(2, IN, ALLOW)))
    world = WORLD6 if family == 6 else WORLD4
    out, into = ip(A.address(family), world) / udp(1000, 53), ip(world, A.address(family)) / udp(7, 8)
    by_stack = ip(world, A.address(family)) / udp(9, 10)
    for number in range(3):
        told = [len(verdicts(run)) for run in (bed.from_pod(A, out), bed.from_device(into), bed.to_pod(A, by_stack))]
        assert told == ([0] * 3 if number else [1] * 3)
        old = (bed.clock.now_j() - bed.config.recheck_j - 1) & 0xFFFFFFFF
        for packet in (out, into, by_stack):
            flow = bed.flow(packet)
            assert flow is not None
            bed.change_flow(
                packet, from_low=replace(flow.from_low, checked_j=old), from_high=replace(flow.from_high, checked_j=old)
            )
    bed.new_generation()
    assert verdicts(bed.from_pod(A, out)) == [(DROP_POLICY_EGRESS, AUDIT, 1)]
