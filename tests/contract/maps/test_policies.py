"""Policies brought into maps of memory and of the kernel, and asked there as the programs ask."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datapath import layout
from datapath.fake_maps import FakeMap
from datapath.layout import Policy, PolicyKey
from datapath.loader.maps import Map
from datapath.maps import InnerMap, slices
from datapath.policy import evaluate
from datapath.policy.compile import Entry, entries
from datapath.policy.model import Answer, Direction, EndpointPolicy, Peer, Rule, Verdict
from datapath.policy.writer import PolicyWriter
from tests.contract.maps.conftest import MakeMap

IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY, AUDIT = Verdict.ALLOW, Verdict.DENY, Verdict.AUDIT
TCP, UDP = 6, 17


@dataclass
class World:
    outer: InnerMap
    make_inner: Callable[[], InnerMap]
    made: list[InnerMap]

    def writer(self) -> PolicyWriter:
        return PolicyWriter(self.outer, self.make_inner)

    def numbers(self) -> set[int]:
        return {
            int.from_bytes(key, sys.byteorder)
            for keys, _, count in self.outer.keys_batches()
            for key in slices(keys, 4, count)
        }

    def inner(self, number: int) -> InnerMap | None:
        key = number.to_bytes(4, sys.byteorder)
        if isinstance(self.outer, FakeMap):
            return self.outer.inner(key)
        value = self.outer.lookup(key)
        return None if value is None else Map.by_id(int.from_bytes(value, sys.byteorder))

    def ask(self, number: int, peer: Peer) -> Answer:
        inner = self.inner(number)
        if inner is None:
            return Answer(DENY, matched=False)
        answer = ask(inner, peer)
        if isinstance(inner, Map):
            inner.close()
        return answer


def ask(inner: InnerMap, peer: Peer) -> Answer:
    """As policy_verdict in bpf/include/policy.h."""
    found: list[Entry | None] = []
    for identity in (peer.identity, 0):
        key = PolicyKey(layout.POLICY_PORT_BITS, peer.direction, identity, peer.protocol, peer.port).pack()
        value = inner.lookup(key)
        one = Policy.unpack(value) if value is not None else None
        found.append(Entry(Verdict(one.verdict), one.bits, one.rule) if one is not None else None)
    exact, anyone = found
    return evaluate._of_two(exact, anyone)


@pytest.fixture
def world(make_map: MakeMap) -> World:
    template = make_map("policy", 64)
    made: list[InnerMap] = []

    def make_inner() -> InnerMap:
        made.append(make_map("policy", 64))
        return made[-1]

    return World(make_map("policies", 64, template if isinstance(template, Map) else None), make_inner, made)


def policy(*rules: Rule) -> EndpointPolicy:
    return EndpointPolicy(frozenset(rules))


WEB = Rule(1, IN, ALLOW, 0, TCP, 80, 80)
FRIEND = Rule(2, IN, ALLOW, 300)
RANGE = Rule(3, OUT, DENY, 0, TCP, 1000, 3000)


def test_policies_come_change_and_go(world: World) -> None:
    writer = world.writer()
    report = writer.apply({7: policy(WEB, RANGE), 8: policy(FRIEND), 9: policy()})
    assert (report.replaced, report.removed, report.changed) == ((7, 8), (), True)
    assert world.numbers() == {7, 8}, "no rules, no map: that denies where it is enforced"
    assert world.ask(7, Peer(IN, 300, TCP, 80)) == Answer(ALLOW, 1)
    assert world.ask(7, Peer(OUT, 300, TCP, 2999)) == Answer(DENY, 3)
    assert world.ask(7, Peer(OUT, 300, TCP, 3001)).matched is False
    assert world.ask(8, Peer(IN, 300, 47)) == Answer(ALLOW, 2)
    assert not writer.apply({7: policy(WEB, RANGE), 8: policy(FRIEND)}).changed
    assert len(world.made) == 2, "what is as it was is not made anew"
    report = writer.apply({7: policy(RANGE), 9: policy(WEB)})
    assert (report.replaced, report.removed) == ((7, 9), (8,))
    assert world.ask(7, Peer(IN, 300, TCP, 80)).matched is False
    assert world.numbers() == {7, 9}
    assert writer.apply({}).removed == (7, 9)
    assert world.numbers() == set()


def test_descriptors_are_not_kept(world: World) -> None:
    world.writer().apply({n: policy(WEB) for n in range(1, 20)})
    assert all(one.closed if isinstance(one, FakeMap) else one.fd == -1 for one in world.made)


def test_many_endpoints_are_one_call(make_map: MakeMap) -> None:
    outer = FakeMap(4, 4, kind="outer")
    keep = []

    def make_inner() -> InnerMap:
        keep.append(FakeMap(16, 16, kind="lpm"))
        return keep[-1]

    PolicyWriter(outer, make_inner).apply({n: policy(WEB) for n in range(1, 200)})
    assert outer.calls["update_batch"] == 1, "the kernel waits 8 ms for each"
    assert outer.calls["update"] == 0


def test_a_restart_replaces_what_it_does_not_know(world: World) -> None:
    world.writer().apply({7: policy(WEB), 8: policy(WEB)})
    report = world.writer().apply({7: policy(FRIEND)})
    assert (report.replaced, report.removed) == ((7,), (8,))
    assert world.ask(7, Peer(IN, 300, TCP, 80)) == Answer(ALLOW, 2)


def test_too_many_rules_leave_the_endpoint_as_it_was(world: World) -> None:
    writer = world.writer()
    writer.apply({7: policy(WEB), 8: policy(WEB)})
    many = [Rule(n, IN, ALLOW, 0, TCP, n, n) for n in range(100, 200)]
    report = writer.apply({7: policy(*many), 8: policy(FRIEND)})
    assert "100 rules make 100 entries, 64 are possible" in report.problems[7]
    assert report.replaced == (8,)
    assert world.ask(7, Peer(IN, 300, TCP, 80)) == Answer(ALLOW, 1)
    assert world.ask(8, Peer(IN, 300, TCP, 80)) == Answer(ALLOW, 2)


ports = st.sampled_from([0, 79, 80, 81, 1023, 1024, 65535]) | st.integers(0, 65535)


@st.composite
def any_rule(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from([0, TCP, UDP]))
    first, last = sorted([draw(ports), draw(ports)]) if protocol and draw(st.booleans()) else (0, 65535)
    direction, verdict = draw(st.sampled_from(list(Direction))), draw(st.sampled_from(list(Verdict)))
    return Rule(draw(st.integers(1, 9)), direction, verdict, draw(st.sampled_from([0, 300])), protocol, first, last)


peers = st.builds(
    Peer, st.sampled_from(list(Direction)), st.sampled_from([300, 301]), st.sampled_from([6, 17, 47]), ports
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.frozensets(any_rule(), max_size=6), st.lists(peers, min_size=1, max_size=10))
def test_the_kernels_trie_says_what_the_rules_say(make_map: MakeMap, rules: frozenset[Rule], asked: list[Peer]) -> None:
    inner = make_map("policy", 1024)
    keys = [(key.pack(), entry.pack()) for key, entry in entries(rules).items()]
    inner.update_batch(b"".join(key for key, _ in keys), b"".join(value for _, value in keys), len(keys))
    edges = [Peer(IN, 300, TCP, port) for rule in rules for port in (rule.first_port, rule.last_port)]
    for peer in asked + edges:
        assert ask(inner, peer) == evaluate.by_rules(rules, peer)
    inner.close()
