"""Cluster pool: each node's ranges for pods, out of ranges of the whole cluster; no cloud is asked. Pure.

Nodes get blocks of one size for each family: the ranges 10.128.0.0/16 and fd00:7::/48, with prefixes of 24 and 64 bits
for nodes, hold 256 and 65,536 of them. What is taken is told with each call, whoever gave it: what a node has by its
own settings is passed over. Blocks are given in turn, so that the one of a node that was deleted rests for as long as
possible before another node's pods have its addresses.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

Network = IPv4Network | IPv6Network
PREFIX4, PREFIX6 = 24, 64


@dataclass(frozen=True, slots=True)
class ClusterRanges:
    """:ivar prefix4: bits of a node's IPv4 range; `prefix6`: of its IPv6 one."""

    ranges: tuple[Network, ...]
    prefix4: int = PREFIX4
    prefix6: int = PREFIX6

    def prefix(self, version: int) -> int:
        return self.prefix4 if version == 4 else self.prefix6

    @property
    def versions(self) -> tuple[int, ...]:
        """The families that each node gets a range of, in order."""
        return tuple(sorted({each.version for each in self.ranges}))

    @property
    def nodes(self) -> int:
        """How many nodes get ranges of every family."""
        counts = dict.fromkeys(self.versions, 0)
        for each in self.ranges:
            counts[each.version] += 1 << (self.prefix(each.version) - each.prefixlen)
        return min(counts.values(), default=0)


def parse_cluster(texts: Sequence[str], prefix4: int = PREFIX4, prefix6: int = PREFIX6) -> ClusterRanges:
    """Reads ranges such as "10.128.0.0/16". Raises ValueError, which says what to write instead."""
    found: list[Network] = []
    for text in texts:
        try:
            one = ip_network(text)
        except ValueError as error:
            raise ValueError(f"{error}; write a range such as 10.128.0.0/16 or fd00:7::/48") from error
        bits = prefix4 if one.version == 4 else prefix6
        if one.prefixlen > bits:
            raise ValueError(f"{one} holds no node's range of {bits} bits; take a larger range or a longer prefix")
        if one.is_multicast or one.is_loopback or one.is_link_local:
            raise ValueError(f"{one} is no range for pods; take a private one")
        for other in found:
            if _overlap(one, other):
                raise ValueError(f"{other} and {one} overlap; name each address once")
        found.append(one)
    return ClusterRanges(tuple(found), prefix4, prefix6)


class Ranges:
    """Ranges that are taken, by whose they are. What overlaps is found without looking at all of them: a fleet that
    comes back at once asks for each of its nodes."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Network, ...]] = {}
        self._rows: dict[int, list[tuple[int, int, str]]] = {4: [], 6: []}  # first and last addresses, in order
        self._longest = {4: 0, 6: 0}

    def put(self, owner: str, networks: Iterable[Network]) -> None:
        """Makes these the ranges of `owner`."""
        now, before = tuple(networks), self._of.get(owner, ())
        if now == before:
            return
        for each in before:
            rows = self._rows[each.version]
            del rows[bisect_left(rows, (*_ends(each), owner))]
        self._of[owner] = now
        for each in now:
            first, last = _ends(each)
            insort(self._rows[each.version], (first, last, owner))
            self._longest[each.version] = max(self._longest[each.version], last - first)

    def drop(self, owner: str) -> None:
        """They are free again."""
        self.put(owner, ())
        self._of.pop(owner, None)

    def overlapping(self, version: int, first: int, last: int) -> Iterator[tuple[int, str]]:
        """Last addresses and owners of those that have an address from `first` to `last`."""
        rows = self._rows[version]
        for place in range(bisect_left(rows, (last + 1,)) - 1, -1, -1):
            low, high, owner = rows[place]
            if low < first - self._longest[version]:
                return
            if high >= first:
                yield high, owner

    def sharing(self, network: Network) -> list[str]:
        """Owners of ranges that overlap this one."""
        return [owner for _, owner in self.overlapping(network.version, *_ends(network))]


class ClusterPool:
    """Gives blocks in turn. It remembers where it was, and nothing else."""

    def __init__(self, ranges: ClusterRanges) -> None:
        self.ranges = ranges
        self._next: dict[int, int] = {}  # by family: the first address behind the last block given

    def give(self, taken: Ranges) -> tuple[str, ...]:
        """A free block of each family, IPv4 first; () when one family has none left: half a node is of no use."""
        given: list[Network] = []
        for version in self.ranges.versions:
            block = self._block(version, taken)
            if block is None:
                return ()
            given.append(block)
        for each in given:
            self._next[each.version] = int(each.broadcast_address) + 1
        return tuple(str(each) for each in given)

    def holds(self, texts: Sequence[str]) -> bool:
        """Whether these are a node's blocks out of the ranges as they are now, one of each family."""
        blocks = [ip_network(text) for text in texts]
        return sorted(each.version for each in blocks) == list(self.ranges.versions) and all(
            each.prefixlen == self.ranges.prefix(each.version) and any(_within(each, one) for one in self.ranges.ranges)
            for each in blocks
        )

    def _block(self, version: int, taken: Ranges) -> Network | None:
        ranges = [each for each in self.ranges.ranges if each.version == version]
        bits = (32 if version == 4 else 128) - self.ranges.prefix(version)
        for low, high in self._spans(version, ranges):
            first = low
            while first + (1 << bits) - 1 <= high:
                busy = max((end for end, _ in taken.overlapping(version, first, first + (1 << bits) - 1)), default=-1)
                if busy < 0:
                    address = (first, self.ranges.prefix(version))
                    return IPv4Network(address) if version == 4 else IPv6Network(address)
                first = ((busy >> bits) + 1) << bits
        return None

    def _spans(self, version: int, ranges: list[Network]) -> Iterator[tuple[int, int]]:
        """First and last addresses to look at: from where it was to the end, then from the beginning."""
        spans = [(int(each.network_address), int(each.broadcast_address)) for each in ranges]
        start = self._next.get(version, -1)
        at = next((place for place, (low, high) in enumerate(spans) if low <= start <= high), None)
        if at is None:
            at = next((place for place, (_, high) in enumerate(spans[:-1]) if high + 1 == start), -1) + 1
            yield from spans[at:]
            yield from spans[:at]
            return
        yield start, spans[at][1]
        yield from spans[at + 1 :]
        yield from spans[:at]
        yield spans[at]


def _ends(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and (
        int(one.network_address) <= int(other.broadcast_address)
        and int(other.network_address) <= int(one.broadcast_address)
    )


def _within(one: Network, other: Network) -> bool:
    return (
        one.version == other.version
        and int(other.network_address) <= int(one.network_address)
        and int(one.broadcast_address) <= int(other.broadcast_address)
    )
