"""How many entries full LRU maps have pushed out. The kernel tells nobody, so it is reckoned.

The programs count what they put into a map; a pass of the collector sees what is there, and knows what was taken out.
What is missing was pushed out. Entries made while a pass reads are left out of the reckoning, so that it tells too few
rather than too many; and below three quarters full nothing is pushed out, whatever a race of two processors makes of
the counts.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from datapath.loader.maps import CPUS
from datapath.maps import MapLike

FULL_ENOUGH: Final = 0.75
# The kernel frees so many at a time for each processor (LOCAL_FREE_TARGET of bpf_lru_list.c): a full map may lack them.
FREED_AT_ONCE: Final = 128


@dataclass(frozen=True, slots=True)
class _Seen:
    """After a pass: entries that stayed, and how many had ever been put there by then."""

    kept: int
    created: int


class Evictions:
    """Not thread-safe: one pass at a time.

    :param created: entries that were ever put into the map of that name; None: they are not counted.
    :param cpus: processors that the kernel keeps free entries for.
    :ivar total: pushed out since the start, by map.
    """

    def __init__(self, created: Callable[[str], int] | None, names: tuple[str, ...], *, cpus: int = CPUS) -> None:
        self._created = created
        self._slack = FREED_AT_ONCE * cpus
        self._before: dict[str, _Seen] = {}
        self._begun: dict[str, int] = {}
        self._elsewhere: Counter[str] = Counter()
        self.total: Counter[str] = Counter(dict.fromkeys(names, 0))

    def took_out(self, name: str, count: int) -> None:
        """Entries that were deleted, but not by the pass through their own map."""
        self._elsewhere[name] += count

    def begin(self, name: str) -> None:
        """Just before a pass reads the map."""
        if self._created is not None:
            self._begun[name] = self._created(name)

    def end(self, name: str, *, seen: int, kept: int, max_entries: int) -> int:
        """Right after it. Returns how many were pushed out since the pass before.

        :param seen: entries that the pass read. :param kept: those that it left.
        """
        if self._created is None:
            return 0
        elsewhere, before = self._elsewhere.pop(name, 0), self._before.get(name)
        self._before[name] = _Seen(kept, self._created(name))
        if before is None or seen + self._slack < FULL_ENOUGH * max_entries:
            return 0
        evicted = max(before.kept + self._begun[name] - before.created - elsewhere - seen, 0)
        self.total[name] += evicted
        return evicted


def created_of(counts: MapLike, numbers: Mapping[str, int]) -> Callable[[str], int]:
    """Reads the programs' counts: an array with a value of 8 bytes for each processor.

    :param numbers: places in the array by the map's name.
    """

    def created(name: str) -> int:
        values = counts.lookup(numbers[name].to_bytes(4, sys.byteorder)) or b""
        return sum(memoryview(values).cast("Q"))

    return created
