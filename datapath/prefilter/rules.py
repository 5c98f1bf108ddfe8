"""Denied ranges in the maps of bpf/xdp.bpf.c. The maps are the only store: they are pinned, and read at the start.

Each rule has a number, the index of its counters. Rules come before the numbers of `prefilter_settings`, and go before
them: the programs leave out look-ups in maps that the settings call empty.
"""

from __future__ import annotations

import heapq
from collections import Counter as Tally
from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from datapath.errors import InvalidRange
from datapath.layout import Counter, address_bytes, address_text
from datapath.maps import MapLike, slices
from datapath.prefilter.layout import (
    PREFILTER_RULES_MAX,
    PrefilterCidr4,
    PrefilterCidr6,
    PrefilterRule,
    PrefilterSettings,
)
from datapath.prefilter.ranges import Range

HOSTS: Final = "prefilter_hosts"
CIDRS4: Final = "prefilter_cidrs4"
CIDRS6: Final = "prefilter_cidrs6"
COUNTERS: Final = "prefilter_counters"
SETTINGS: Final = "prefilter_settings"
_ZERO: Final = bytes(PrefilterRule.SIZE)  # an index


class Rules:
    """Not safe between threads: prefilter.py guards it."""

    def __init__(self, maps: Mapping[str, MapLike]) -> None:
        """Reads what is there, and sets the settings right, should a daemon have been killed between."""
        self._maps = maps
        self._numbers: dict[Range, int] = {}
        for name in (HOSTS, CIDRS4, CIDRS6):
            for keys, values, count in maps[name].keys_batches():
                numbers = PrefilterRule.unpack_all(values[: count * PrefilterRule.SIZE])
                for key, rule in zip(slices(keys, maps[name].key_size, count), numbers, strict=True):
                    self._numbers[_range_of(name, key)] = rule.number
        self._next = max(self._numbers.values(), default=0) + 1
        self._free = sorted(set(range(1, self._next)).difference(self._numbers.values()))
        self._settle()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, one: Range) -> bool:
        return one in self._numbers

    def counted(self) -> Iterator[tuple[Range, int, Counter]]:
        """Each range with its number and what was dropped for it."""
        counters = self._maps[COUNTERS]
        for one, number in sorted(self._numbers.items(), key=lambda item: (item[0].version, item[0])):
            each = list(Counter.unpack_all(counters.lookup(PrefilterRule(number).pack()) or b""))
            yield one, number, Counter(sum(cpu.packets for cpu in each), sum(cpu.byte_count for cpu in each))

    def add(self, ranges: Collection[Range]) -> int:
        """Those that are not there yet; returns how many. Raises InvalidRange if there is no room for all of them; then
        nothing is changed."""
        new = [one for one in dict.fromkeys(ranges) if one not in self._numbers]
        self._refuse_too_many(new)
        numbers = {one: self._number() for one in new}
        counters = self._maps[COUNTERS]
        keys = b"".join(PrefilterRule(number).pack() for number in numbers.values())
        counters.update_batch(keys, bytes(counters.value_size) * len(new), len(new))
        for name, some in _by_map(new).items():
            values = b"".join(PrefilterRule(numbers[one]).pack() for one in some)
            self._maps[name].update_batch(b"".join(map(_key_of, some)), values, len(some))
            self._numbers.update((one, numbers[one]) for one in some)
        self._settle()
        return len(new)

    def delete(self, ranges: Collection[Range]) -> int:
        """Those that are there; returns how many."""
        old = [one for one in dict.fromkeys(ranges) if one in self._numbers]
        for name, some in _by_map(old).items():
            self._maps[name].delete_batch(b"".join(map(_key_of, some)), len(some))
            for one in some:
                heapq.heappush(self._free, self._numbers.pop(one))
        self._settle()
        return len(old)

    def _refuse_too_many(self, new: Collection[Range]) -> None:
        there = Tally(map(_map_of, self._numbers))
        for name, count in Tally(map(_map_of, new)).items():
            most = self._maps[name].max_entries
            if there[name] + count > most:
                kind = {HOSTS: "addresses", CIDRS4: "IPv4 ranges", CIDRS6: "IPv6 ranges"}[name]
                raise InvalidRange(
                    f"{there[name]} {kind} are denied, and {count} more do not fit: there is room for {most}",
                    field="cidrs",
                    remedy="deny wider ranges in place of many small ones, or delete some",
                )

    def _number(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        assert self._next <= PREFILTER_RULES_MAX  # the maps hold fewer
        return self._next - 1

    def _settle(self) -> None:
        kinds = Tally((_map_of(one), one.version) for one in self._numbers)
        settings = PrefilterSettings(kinds[HOSTS, 4], kinds[CIDRS4, 4], kinds[HOSTS, 6], kinds[CIDRS6, 6])
        self._maps[SETTINGS].update(_ZERO, settings.pack())


def _map_of(one: Range) -> str:
    if one.prefixlen == one.max_prefixlen:
        return HOSTS
    return CIDRS4 if one.version == 4 else CIDRS6


def _by_map(ranges: Collection[Range]) -> dict[str, list[Range]]:
    found: dict[str, list[Range]] = {}
    for one in ranges:
        found.setdefault(_map_of(one), []).append(one)
    return found


def _key_of(one: Range) -> bytes:
    if one.prefixlen == one.max_prefixlen:
        return address_bytes(str(one.network_address))
    packed = one.network_address.packed
    return (PrefilterCidr4(one.prefixlen, packed) if one.version == 4 else PrefilterCidr6(one.prefixlen, packed)).pack()


def _range_of(name: str, key: bytes) -> Range:
    if name == HOSTS:
        text = address_text(key)
        return IPv6Network(text or "::") if ":" in text or not text else IPv4Network(text)
    if name == CIDRS4:
        four = PrefilterCidr4.unpack(key)
        return IPv4Network((four.address, four.prefix_bits))
    six = PrefilterCidr6.unpack(key)
    return IPv6Network((six.address, six.prefix_bits))
