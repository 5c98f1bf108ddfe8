"""Cluster pool: each node's ranges for pods, out of ranges of the whole cluster; no cloud is asked. Pure.

Nodes get blocks of one size for each family: the ranges 10.128.0.0/16 and fd00:7::/48, with prefixes of 24 and 64 bits
for nodes, hold 256 and 65,536 of them. What is taken is told with each call, whoever gave it: what a node has by its
own settings is passed over. Blocks are given in turn, so that the one of a node that was deleted rests for as long as
possible before another node's pods have its addresses.
"""

from __future__ import annotations

from bisect import bisect_right
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


class ClusterPool:
    """Gives blocks in turn. It remembers where it was, and nothing else."""

    def __init__(self, ranges: ClusterRanges) -> None:
        self.ranges = ranges
        self._next: dict[int, int] = {}  # by family: the first address behind the last block given

    def give(self, taken: Iterable[Network]) -> tuple[str, ...]:
        """A free block of each family, IPv4 first; () when one family has none left: half a node is of no use."""
        held = list(taken)
        given: list[Network] = []
        for version in self.ranges.versions:
            block = self._block(version, [each for each in held if each.version == version])
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

    def _block(self, version: int, held: list[Network]) -> Network | None:
        ranges = [each for each in self.ranges.ranges if each.version == version]
        busy = _merged(held)
        starts = [first for first, _ in busy]
        bits = (32 if version == 4 else 128) - self.ranges.prefix(version)
        for low, high in self._spans(version, ranges):
            first = low
            while first + (1 << bits) - 1 <= high:
                at = bisect_right(starts, first + (1 << bits) - 1) - 1
                if at < 0 or busy[at][1] < first:
                    address = (first, self.ranges.prefix(version))
                    return IPv4Network(address) if version == 4 else IPv6Network(address)
                first = ((busy[at][1] >> bits) + 1) << bits
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


def _merged(held: Iterable[Network]) -> list[tuple[int, int]]:
    """First and last addresses of what is taken, disjoint and in order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((int(each.network_address), int(each.broadcast_address)) for each in held):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


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
