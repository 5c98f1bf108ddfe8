"""Masqueraded connections for people: the two entries of each, one for each way, made one."""

from __future__ import annotations

from collections.abc import Iterator

from datapath import layout
from datapath.conntrack.flows import Clock
from datapath.events import words
from datapath.events.filters import Names
from datapath.layout import Nat, NatKey, address_text
from datapath.maps import MapLike
from datapath.view.model import End, Selection, TranslationFacts
from datapath.view.select import select


def listed(nat: MapLike, clock: Clock, names: Names, wanted: Selection) -> Iterator[TranslationFacts]:
    """Translations that match, in no order; one whose way out is missing (its other entry was pushed out of a full map,
    and comes back with its next packet) is told by its way in. Raises InvalidFilter at once, BpfRefused on the way."""
    matches = select(wanted)
    return (facts for facts in _all(nat, clock, names) if matches(facts))


def _all(nat: MapLike, clock: Clock, names: Names) -> Iterator[TranslationFacts]:
    told: set[bytes] = set()
    ways_in: list[tuple[bytes, Nat]] = []
    for keys, values, count in nat.keys_batches():
        now_j = clock.now_j()
        for number in range(count):
            key = NatKey.unpack(keys, number * NatKey.SIZE)
            value = Nat.unpack(values, number * Nat.SIZE)
            if key.direction == layout.NAT_IN:
                ways_in.append((keys[number * NatKey.SIZE : (number + 1) * NatKey.SIZE], value))
                continue
            told.add(_way_in(key, value))
            yield _facts(key, value, now_j, clock, names)
    now_j = clock.now_j()
    for packed, value in ways_in:
        if packed not in told:
            key = NatKey.unpack(packed)
            out = NatKey(value.address, key.source, value.port, key.source_port, key.protocol, layout.NAT_OUT)
            source = Nat(key.destination, key.destination_port, value.expires_j, value.created_j)
            yield _facts(out, source, now_j, clock, names)


def _way_in(out: NatKey, value: Nat) -> bytes:
    return NatKey(out.destination, value.address, out.destination_port, value.port, out.protocol, layout.NAT_IN).pack()


def _facts(out: NatKey, value: Nat, now_j: int, clock: Clock, names: Names) -> TranslationFacts:
    return TranslationFacts(
        protocol=words.protocol_word(out.protocol),
        source=End(address_text(out.source), out.source_port, names.pod_at(out.source)),
        destination=End(address_text(out.destination), out.destination_port, names.pod_at(out.destination)),
        translated=End(address_text(value.address), value.port),
        age_s=clock.to_seconds(now_j - value.created_j),
        expires_s=clock.to_seconds(value.expires_j - now_j),
    )
