"""Connections for people: decoded, filtered, ordered, flushed.

The table may hold millions: keys are tested as they lie in memory, and only what may match is decoded. What changes
while the table is read may be seen as it was or as it is.
"""

from __future__ import annotations

import heapq
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Protocol

from datapath import layout
from datapath.conntrack.translations import translations_of
from datapath.errors import InvalidFilter
from datapath.events import words
from datapath.events.filters import Names, pod_name, port_number, protocol_number, range_of
from datapath.layout import STATE_WORDS, Flow, FlowKey, Path, address_text
from datapath.maps import MapLike
from datapath.view.model import End, FlowFacts, Selection, Way
from datapath.view.select import select

_FLAGS: Final = slice(Flow.OFFSETS["flags"], Flow.OFFSETS["flags"] + 2)
ORDERS: Final = ("none", "bytes", "packets", "newest", "oldest", "expires")


class Clock(Protocol):
    """loader.clock.Clock"""

    def now_j(self) -> int: ...

    def to_seconds(self, duration_j: int) -> float: ...


def listed(
    flows: MapLike, clock: Clock, names: Names, wanted: Selection, states: Collection[str] = ()
) -> Iterator[FlowFacts]:
    """Connections that match, in no order. Raises InvalidFilter at once, BpfRefused on the way.

    :param states: opening, open, closing; none: all."""
    found = _matching(flows, clock, names, wanted, states)
    return (facts for _, facts in found)


def ordered(facts: Iterable[FlowFacts], by: str, limit: int = 0) -> Iterable[FlowFacts]:
    """:param by: one of ORDERS; what weighs most comes first. `limit` 0: all. Raises InvalidFilter."""
    measures: dict[str, Callable[[FlowFacts], float]] = {
        "bytes": lambda one: -(one.forth.bytes + one.back.bytes),
        "packets": lambda one: -(one.forth.packets + one.back.packets),
        "newest": lambda one: one.age_s,
        "oldest": lambda one: -one.age_s,
        "expires": lambda one: one.expires_s,
    }
    if by not in ORDERS:
        raise InvalidFilter(f"{by!r} is no order", field="order", remedy=f"choose one of {', '.join(ORDERS)}")
    if by == "none":
        return facts if not limit else (one for _, one in zip(range(limit), facts, strict=False))
    return heapq.nsmallest(limit, facts, measures[by]) if limit else sorted(facts, key=measures[by])


def flush(
    flows: MapLike,
    nat: MapLike,
    clock: Clock,
    names: Names,
    wanted: Selection,
    states: Collection[str] = (),
    *,
    told: Callable[[str, int], None] = lambda name, count: None,
) -> int:
    """Forgets connections that match, with their translations; an empty selection forgets all. Returns how many.

    Their next packets are new connections: asked of policy again, and masqueraded by another port.

    :param told: hears how many entries went, by map.
    """
    deleted = translations = 0
    for key, _ in list(_matching(flows, clock, names, wanted, states)):
        value = flows.lookup(key)
        if value is not None and flows.delete(key):
            deleted += 1
            translations += sum(map(nat.delete, translations_of(key, value)))
    told("flows", deleted)
    told("nat", translations)
    return deleted


def _matching(
    flows: MapLike, clock: Clock, names: Names, wanted: Selection, states: Collection[str]
) -> Iterator[tuple[bytes, FlowFacts]]:
    unknown = sorted(set(states) - set(STATE_WORDS.values()))
    if unknown:
        raise InvalidFilter(
            f"{unknown[0]!r} is no state", field="state", remedy=f"choose one of {', '.join(STATE_WORDS.values())}"
        )
    return _read(flows, clock, names, select(wanted), _key_test(wanted, names), frozenset(states))


def _read(
    flows: MapLike,
    clock: Clock,
    names: Names,
    matches: Callable[[FlowFacts], bool],
    key_matches: Callable[[tuple[bytes, bytes, int, int, int]], bool] | None,
    states: frozenset[str],
) -> Iterator[tuple[bytes, FlowFacts]]:
    size, nat = flows.value_size, layout.FLOW_NAT
    for keys, values, count in flows.keys_batches():
        now_j = clock.now_j()
        for number, parts in enumerate(FlowKey.STRUCT.iter_unpack(keys[: count * FlowKey.SIZE])):
            start = number * size
            if key_matches is not None and not key_matches(parts):
                # What a masqueraded one looks like from outside may match.
                flags = values[start + _FLAGS.start : start + _FLAGS.stop]
                if not int.from_bytes(flags, sys.byteorder) & nat:
                    continue
            key = keys[number * FlowKey.SIZE : (number + 1) * FlowKey.SIZE]
            facts = _facts(FlowKey.unpack(key), Flow.unpack(values, start), now_j, clock, names)
            if (not states or facts.state in states) and matches(facts):
                yield key, facts


def _key_test(wanted: Selection, names: Names) -> Callable[[tuple[bytes, bytes, int, int, int]], bool] | None:
    """A test of a key as unpacked by its struct: false only for what cannot match untranslated."""
    if wanted == Selection():
        return None
    ports = frozenset(socket.htons(port_number(port)) for port in wanted.ports)
    protocols = frozenset(protocol_number(word) for word in wanted.protocols)
    ranges = [range_of(text) for text in wanted.addresses]
    exact = frozenset(value.to_bytes(16, "big") for value, shift in ranges if not shift)
    wide = [(value, shift) for value, shift in ranges if shift]
    pods = frozenset(pod_name(pod) for pod in wanted.pods)

    def within(address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        return any(number >> shift == value for value, shift in wide)

    def matches(parts: tuple[bytes, bytes, int, int, int]) -> bool:
        low, high, low_port, high_port, protocol = parts
        if protocols and protocol not in protocols:
            return False
        if ports and low_port not in ports and high_port not in ports:
            return False
        if ranges and low not in exact and high not in exact and not (wide and (within(low) or within(high))):
            return False
        return not pods or names.pod_at(low) in pods or names.pod_at(high) in pods

    return matches


def _facts(key: FlowKey, flow: Flow, now_j: int, clock: Clock, names: Names) -> FlowFacts:
    low = End(address_text(key.low), key.low_port, names.pod_at(key.low), flow.low_identity)
    high = End(address_text(key.high), key.high_port, names.pod_at(key.high), flow.high_identity)
    if flow.flags & layout.FLOW_ORIGIN_HIGH:
        source, destination, forth, back = high, low, flow.from_high, flow.from_low
    else:
        source, destination, forth, back = low, high, flow.from_low, flow.from_high
    translated = None
    if forth.flags & layout.PATH_NAT:
        translated = End(address_text(forth.nat_address), forth.nat_port)
    return FlowFacts(
        protocol=words.protocol_word(key.protocol),
        source=source,
        destination=destination,
        state=STATE_WORDS.get(flow.state, f"state-{flow.state}"),
        age_s=clock.to_seconds(now_j - flow.created_j),
        expires_s=clock.to_seconds(flow.expires_j - now_j),
        forth=_way(forth, names),
        back=_way(back, names),
        translated=translated,
    )


def _way(path: Path, names: Names) -> Way:
    return Way(
        packets=path.packets,
        bytes=path.byte_count,
        action=words.action_word(path.action),
        device=names.device(path.out_ifindex) if path.out_ifindex else "",
        denied=words.reason_of(path.reason).word if path.flags & layout.PATH_DENIED else "",
    )
