"""The verdict for a packet in pure Python, twice: from the rules, and from the entries as the programs ask them.

Both must agree for any rules and any packet, and with what the programs say; tests hold them against each other.
`trace` and messages to people use the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from datapath.layout import POLICY_FIXED_BITS, POLICY_PROTOCOL_BITS
from datapath.policy.compile import Entry, Key, rank
from datapath.policy.model import (
    ANY_IDENTITY,
    ANY_PROTOCOL,
    Answer,
    Direction,
    EndpointPolicy,
    Enforcement,
    Peer,
    Rule,
    Verdict,
)
from datapath.policy.ranges import PORT_BITS

_UNMATCHED: Final = Answer(Verdict.DENY, matched=False)


def verdict(policy: EndpointPolicy, peer: Peer) -> Answer:
    """What happens to a new connection, the endpoint's flags included."""
    return _flagged(policy.enforcement, peer.direction, by_rules(policy.rules, peer))


def by_rules(rules: Iterable[Rule], peer: Peer) -> Answer:
    """What the rules say, as if the direction were enforced and not audited."""
    matching = [rule for rule in rules if _matches(rule, peer)]
    exact = min((rule for rule in matching if rule.identity == peer.identity), key=rank, default=None)
    anyone = min((rule for rule in matching if rule.identity == ANY_IDENTITY), key=rank, default=None)
    return _of_two(
        None if exact is None else Entry(exact.verdict, exact.bits, exact.number),
        None if anyone is None else Entry(anyone.verdict, anyone.bits, anyone.number),
    )


def by_entries(entries: Mapping[Key, Entry], peer: Peer) -> Answer:
    """What the programs find in the endpoint's map, as if the direction were enforced and not audited."""
    return _of_two(_longest(entries, peer, peer.identity), _longest(entries, peer, ANY_IDENTITY))


def _matches(rule: Rule, peer: Peer) -> bool:
    return (
        rule.direction is peer.direction
        and rule.identity in (ANY_IDENTITY, peer.identity)
        and rule.protocol in (ANY_PROTOCOL, peer.protocol)
        and (rule.protocol == ANY_PROTOCOL or rule.first_port <= peer.port <= rule.last_port)
    )


def _of_two(exact: Entry | None, anyone: Entry | None) -> Answer:
    """The look-up with the peer's identity and that with any, made one."""
    if exact is None or anyone is None:
        best = exact or anyone
    elif (exact.verdict is Verdict.DENY) != (anyone.verdict is Verdict.DENY):
        best = exact if exact.verdict is Verdict.DENY else anyone
    else:
        best = anyone if anyone.bits > exact.bits else exact
    return _UNMATCHED if best is None else Answer(best.verdict, best.rule)


def _longest(entries: Mapping[Key, Entry], peer: Peer, identity: int) -> Entry | None:
    """An LPM look-up, the long way."""
    for bits in range(PORT_BITS, -1, -1):
        port = peer.port >> (PORT_BITS - bits) << (PORT_BITS - bits)
        found = entries.get(Key(POLICY_PROTOCOL_BITS + bits, peer.direction, identity, peer.protocol, port))
        if found is not None:
            return found
    return entries.get(Key(POLICY_FIXED_BITS, peer.direction, identity))


def _flagged(enforcement: Enforcement, direction: Direction, answer: Answer) -> Answer:
    if not enforcement.enforced(direction):
        return Answer(Verdict.ALLOW, matched=False)
    if answer.verdict is Verdict.DENY and enforcement.audited(direction):
        return Answer(Verdict.AUDIT, answer.rule, answer.matched)
    return answer
