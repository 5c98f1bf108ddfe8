"""Random policies: what the programs decide is what the rules say, number of the rule included."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datapath import layout
from datapath.policy import evaluate
from datapath.policy.model import Answer, Direction, EndpointPolicy, Enforcement, Peer, Rule, Verdict
from tests.datapath.programs.bed import A, B, Pod, ProgramBed
from tests.datapath.programs.packets import ip, tcp, udp

pytestmark = [pytest.mark.root, pytest.mark.tool("clang-19", "ip")]

TCP, UDP = 6, 17
ports = st.sampled_from([1, 79, 80, 81, 1023, 1024, 65535]) | st.integers(1, 65535)


@st.composite
def any_rule(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from([0, TCP, UDP]))
    first, last = sorted([draw(ports), draw(ports)]) if protocol and draw(st.booleans()) else (0, 65535)
    direction, verdict = draw(st.sampled_from(list(Direction))), draw(st.sampled_from(list(Verdict)))
    identity = draw(st.sampled_from([0, A.identity, B.identity, 300]))
    return Rule(draw(st.integers(1, 1000)), direction, verdict, identity, protocol, first, last)


policies = st.builds(
    EndpointPolicy,
    st.frozensets(any_rule(), max_size=8),
    st.builds(Enforcement, st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
packets = st.lists(st.tuples(st.sampled_from([4, 6]), st.sampled_from([TCP, UDP]), ports), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policies, policies, packets)
def test_the_programs_say_what_the_rules_say(
    bed: ProgramBed, of_a: EndpointPolicy, of_b: EndpointPolicy, asked: list[tuple[int, int, int]]
) -> None:
    bed.set_policy(A, of_a)
    bed.set_policy(B, of_b)
    edges = [rule for rule in of_a.rules | of_b.rules if rule.protocol and rule.first_port]
    asked = asked + [(4, rule.protocol, port) for rule in edges for port in (rule.first_port, rule.last_port)]
    for family, protocol, port in asked:
        bed.maps["flows"].clear()
        segment = tcp(4000, port) if protocol == TCP else udp(4000, port)
        run = bed.from_pod(A, ip(A.address(family), B.address(family)) / segment)
        leaving = _answer(of_a, Direction.EGRESS, B, protocol, port)
        entering = _answer(of_b, Direction.INGRESS, A, protocol, port)
        if leaving.verdict is Verdict.DENY:
            assert run.reason == layout.DROP_POLICY_EGRESS, str(run)
        elif entering.verdict is Verdict.DENY:
            assert run.reason == layout.DROP_POLICY_INGRESS, str(run)
        else:
            assert run.verdict == "redirect", str(run)
        expected = []
        if of_a.enforcement.egress:
            expected.append((layout.DROP_POLICY_EGRESS, leaving.verdict, leaving.rule))
        if of_b.enforcement.ingress and leaving.verdict is not Verdict.DENY:
            expected.append((layout.DROP_POLICY_INGRESS, entering.verdict, entering.rule))
        told = [(event.reason, event.verdict, event.rule) for event in run.told(layout.EVENT_VERDICT)]
        assert told == expected


def _answer(policy: EndpointPolicy, direction: Direction, peer: Pod, protocol: int, port: int) -> Answer:
    return evaluate.verdict(policy, Peer(direction, peer.identity, protocol, port))
