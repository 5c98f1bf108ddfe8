"""Rules of an endpoint as entries of one LPM map. Pure.

The programs ask the map twice (for the peer's identity, then for any) and each time get the longest prefix only,
whatever its verdict. So whoever wins among the rules of one identity is settled here, for every port: overlapping
ranges are cut into pieces, each with its winner. What of both answers counts is told by `bits` of the value; it is
the rule's own measure (Rule.bits), not the entry's: a range that lies across a power of two would else count as
several, each unlike the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from datapath.layout import POLICY_FIXED_BITS, POLICY_PROTOCOL_BITS, Policy, PolicyKey
from datapath.policy.model import ANY_PROTOCOL, Direction, Rule, Verdict
from datapath.policy.ranges import prefixes


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """`prefix_bits` as the trie counts them."""

    prefix_bits: int
    direction: Direction
    identity: int
    protocol: int = 0
    port: int = 0

    def pack(self) -> bytes:
        return PolicyKey(self.prefix_bits, self.direction, self.identity, self.protocol, self.port).pack()


@dataclass(frozen=True, slots=True)
class Entry:
    verdict: Verdict
    bits: int
    rule: int

    def pack(self, packets: int = 0) -> bytes:
        return Policy(self.verdict, self.bits, self.rule, packets).pack()


def entries(rules: Collection[Rule]) -> dict[Key, Entry]:
    """The whole content of the endpoint's map."""
    found: dict[Key, Entry] = {}
    groups: dict[tuple[Direction, int], list[Rule]] = defaultdict(list)
    for rule in rules:
        groups[rule.direction, rule.identity].append(rule)
    for (direction, identity), group in groups.items():
        found.update(_of_identity(direction, identity, group))
    return found


def _of_identity(direction: Direction, identity: int, rules: Iterable[Rule]) -> Iterator[tuple[Key, Entry]]:
    protocols: dict[int, list[Rule]] = defaultdict(list)
    for rule in rules:
        protocols[rule.protocol].append(rule)
    general = _winner(protocols.pop(ANY_PROTOCOL, []))
    if general is not None:
        yield Key(POLICY_FIXED_BITS, direction, identity), _entry(general)
        if general.verdict is Verdict.DENY:
            return  # nothing below could win against it
    for protocol, group in protocols.items():
        whole = _winner([rule for rule in group if rule.all_ports])
        if whole is not None:
            yield Key(POLICY_PROTOCOL_BITS, direction, identity, protocol), _entry(whole)
            if whole.verdict is Verdict.DENY:
                continue
        for first, last, rule in _pieces([rule for rule in group if not rule.all_ports]):
            for port, bits in prefixes(first, last):
                yield Key(POLICY_PROTOCOL_BITS + bits, direction, identity, protocol, port), _entry(rule)


def _pieces(rules: Collection[Rule]) -> Iterator[tuple[int, int, Rule]]:
    """Ranges that do not overlap, each with the rule that wins there; neighbours with one winner are one."""
    edges = sorted({rule.first_port for rule in rules} | {rule.last_port + 1 for rule in rules})
    starting: Mapping[int, list[Rule]] = _by(rules, lambda rule: rule.first_port)
    open_: list[Rule] = []
    piece: tuple[int, int, Rule] | None = None
    for start, end in pairwise(edges):
        open_ = [rule for rule in open_ if rule.last_port >= start] + starting.get(start, [])
        rule = _winner(open_)
        if piece is not None and rule is piece[2]:
            piece = (piece[0], end - 1, rule)
            continue
        if piece is not None:
            yield piece
        piece = (start, end - 1, rule) if rule is not None else None
    if piece is not None:
        yield piece


def _by(rules: Iterable[Rule], key: Callable[[Rule], int]) -> dict[int, list[Rule]]:
    found: dict[int, list[Rule]] = defaultdict(list)
    for rule in rules:
        found[key(rule)].append(rule)
    return found


def _winner(rules: Collection[Rule]) -> Rule | None:
    return min(rules, key=rank, default=None)


def rank(rule: Rule) -> tuple[bool, int, bool, int]:
    """The lowest wins among rules of one identity. Denies come first, the broadest of them: which one it is matters
    to the number that is told only."""
    if rule.verdict is Verdict.DENY:
        return (False, rule.bits, False, rule.number)
    return (True, -rule.bits, rule.verdict is not Verdict.AUDIT, rule.number)


def _entry(rule: Rule) -> Entry:
    return Entry(rule.verdict, rule.bits, rule.number)
