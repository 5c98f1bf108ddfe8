"""Rules, their entries in an LPM map, and the verdicts of both."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.errors import InvalidPolicy
from datapath.fake_maps import FakeMap
from datapath.policy import evaluate
from datapath.policy.compile import Entry, Key, entries
from datapath.policy.model import Answer, Direction, EndpointPolicy, Enforcement, Peer, Rule, Verdict
from datapath.policy.ranges import prefixes

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY, AUDIT = Verdict.ALLOW, Verdict.DENY, Verdict.AUDIT
TCP, UDP = 6, 17


@settings(deadline=None)
@given(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted))
def test_prefixes_cover_a_range_exactly_and_there_is_no_shorter_way(ports: list[int]) -> None:
    first, last = ports
    found = list(prefixes(first, last))
    at = first
    for port, bits in found:
        assert port == at, "in order, without gap and overlap"
        assert port % (1 << (16 - bits)) == 0, "its lower bits are free"
        at += 1 << (16 - bits)
    assert at == last + 1
    # It cannot be done with fewer: no block may grow into its buddy, as each buddy that lies within would be one with
    # it.
    blocks = set(found)
    for port, bits in blocks:
        if bits:
            assert (port ^ (1 << (16 - bits)), bits) not in blocks


@pytest.mark.parametrize(
    ("first", "last", "count"), [(0, 65535, 1), (80, 80, 1), (1, 65534, 30), (1024, 2047, 1), (1000, 2047, 3)]
)
def test_how_many_prefixes(first: int, last: int, count: int) -> None:
    assert len(list(prefixes(first, last))) == count


STORY: list[tuple[str, list[Rule], Peer, Verdict, int]] = [
    ("nothing matches", [], Peer(IN, 300, TCP, 80), DENY, 0),
    ("anybody may ask the web server", [Rule(1, IN, ALLOW, 0, TCP, 80, 80)], Peer(IN, 300, TCP, 80), ALLOW, 1),
    ("but on that port only", [Rule(1, IN, ALLOW, 0, TCP, 80, 80)], Peer(IN, 300, TCP, 81), DENY, 0),
    ("and by that protocol only", [Rule(1, IN, ALLOW, 0, TCP, 80, 80)], Peer(IN, 300, UDP, 80), DENY, 0),
    ("and in that direction only", [Rule(1, IN, ALLOW, 0, TCP, 80, 80)], Peer(OUT, 300, TCP, 80), DENY, 0),
    ("a friend may everything", [Rule(1, IN, ALLOW, 300)], Peer(IN, 300, 47), ALLOW, 1),
    ("a stranger is no friend", [Rule(1, IN, ALLOW, 300)], Peer(IN, 301, 47), DENY, 0),
    (
        "a deny for all wins against an allow for one",
        [Rule(1, IN, ALLOW, 300, TCP, 80, 80), Rule(2, IN, DENY)],
        Peer(IN, 300, TCP, 80),
        DENY,
        2,
    ),
    (
        "a deny of a wide range wins against an allow within it, on any port of it",
        [Rule(1, IN, DENY, 0, TCP, 1000, 3000), Rule(2, IN, ALLOW, 0, TCP, 1024, 1279)],
        Peer(IN, 300, TCP, 1100),
        DENY,
        1,
    ),
    (
        "beside the deny, the allow holds",
        [Rule(1, IN, DENY, 0, TCP, 1200, 3000), Rule(2, IN, ALLOW, 0, TCP, 1000, 1279)],
        Peer(IN, 300, TCP, 1199),
        ALLOW,
        2,
    ),
    (
        "one port says more than a protocol",
        [Rule(1, IN, AUDIT, 0, TCP), Rule(2, IN, ALLOW, 0, TCP, 80, 80)],
        Peer(IN, 300, TCP, 80),
        ALLOW,
        2,
    ),
    (
        "a port for anybody says more than everything for a friend",
        [Rule(1, IN, ALLOW, 300), Rule(2, IN, AUDIT, 0, TCP, 80, 80)],
        Peer(IN, 300, TCP, 80),
        AUDIT,
        2,
    ),
    (
        "of two that say as much, the friend's",
        [Rule(1, IN, AUDIT, 0, TCP, 80, 80), Rule(2, IN, ALLOW, 300, TCP, 80, 80)],
        Peer(IN, 300, TCP, 80),
        ALLOW,
        2,
    ),
    (
        "nearly all ports say more than all",
        [Rule(1, IN, AUDIT, 0, TCP), Rule(2, IN, ALLOW, 0, TCP, 1, 65535)],
        Peer(IN, 300, TCP, 9),
        ALLOW,
        2,
    ),
    ("port 0 is a port", [Rule(1, IN, ALLOW, 0, 1, 0x0800, 0x08FF)], Peer(IN, 300, 1, 0x0800), ALLOW, 1),
]


@pytest.mark.parametrize(("what", "rules", "peer", "verdict", "number"), STORY, ids=[row[0] for row in STORY])
def test_verdicts(what: str, rules: list[Rule], peer: Peer, verdict: Verdict, number: int) -> None:
    assert (evaluate.by_rules(rules, peer).verdict, evaluate.by_rules(rules, peer).rule) == (verdict, number), what
    assert evaluate.by_entries(entries(rules), peer) == evaluate.by_rules(rules, peer)


ports = st.sampled_from([0, 1, 79, 80, 81, 1023, 1024, 2047, 65534, 65535]) | st.integers(0, 65535)
directions = st.sampled_from(list(Direction))
identities = st.sampled_from([0, 300, 301])


@st.composite
def any_rule(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from([0, TCP, UDP]))
    first, last = sorted([draw(ports), draw(ports)]) if protocol and draw(st.booleans()) else (0, 65535)
    number, verdict = draw(st.integers(1, 50)), draw(st.sampled_from(list(Verdict)))
    return Rule(number, draw(directions), verdict, draw(identities), protocol, first, last)


peers = st.builds(Peer, directions, st.sampled_from([300, 301, 302]), st.sampled_from([TCP, UDP, 47]), ports)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_rule(), max_size=12), st.lists(peers, min_size=1, max_size=20))
def test_the_map_says_what_the_rules_say(rules: list[Rule], asked: list[Peer]) -> None:
    held = FakeMap(16, 16, kind="lpm")
    compiled = entries(rules)
    for key, entry in compiled.items():
        held.update(key.pack(), entry.pack())
    edges = {port for rule in rules for port in (rule.first_port, rule.last_port)}
    asked = asked + [Peer(IN, 300, TCP, port) for port in edges]
    for peer in asked:
        expected = evaluate.by_rules(rules, peer)
        assert evaluate.by_entries(compiled, peer) == expected
        assert by_map(held, peer) == expected, "and so do the very bytes"


def by_map(held: FakeMap, peer: Peer) -> Answer:
    found: list[Entry | None] = []
    for identity in (peer.identity, 0):
        value = held.lookup(Key(96, peer.direction, identity, peer.protocol, peer.port).pack())
        if value is None:
            found.append(None)
            continue
        verdict, bits, _, rule, _ = struct.unpack("=BBHIQ", value)
        found.append(Entry(Verdict(verdict), bits, rule))
    exact, anyone = found
    return evaluate._of_two(exact, anyone)


def test_flags_of_the_endpoint_come_last() -> None:
    rules = frozenset({Rule(1, IN, DENY, 300)})
    peer = Peer(IN, 300, TCP, 80)
    assert evaluate.verdict(EndpointPolicy(rules), peer).verdict is ALLOW, "not enforced"
    assert evaluate.verdict(EndpointPolicy(rules, Enforcement(ingress=True)), peer).verdict is DENY
    audited = EndpointPolicy(rules, Enforcement(ingress=True, audit_ingress=True))
    assert evaluate.verdict(audited, peer).verdict is AUDIT
    assert evaluate.verdict(audited, Peer(IN, 301, TCP, 80)).verdict is AUDIT, "what nothing allows, too"
    assert Enforcement(True, False, False, True).target_flags == 0x41


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((1, IN, ALLOW, 1 << 24), "identity"),
        ((1, IN, ALLOW, 0, 256), "protocol"),
        ((1, IN, ALLOW, 0, TCP, 0, 65536), "last_port"),
        ((1, IN, ALLOW, 0, TCP, 81, 80), "first_port"),
        ((1, IN, ALLOW, 0, 0, 80, 80), "protocol"),
    ],
)
def test_a_rule_that_cannot_be_names_its_field(arguments: tuple[int, ...], field: str) -> None:
    with pytest.raises(InvalidPolicy) as refused:
        Rule(*arguments)  # type: ignore[arg-type]
    assert refused.value.field == field
