"""How large the maps of connections are, from the machine's memory. Pure.

One ratio of RAM (default 0.0025, a quarter of a per cent) pays for all three maps, split by SHARES as they are used:
each connection of a pod has one entry in `flows`; only what leaves the cluster has two in `nat`; only datagrams in
pieces have one in `fragments`, and for seconds. An entry costs its key, its value and OVERHEAD_BYTES: the kernel
allocates all of an LRU map at the start, so this is what is really taken. A node of 8 GiB gets about 53,000 flows,
one of 64 GiB 426,000.

Too small a map loses connections (the oldest give way to new ones, and are decided anew when their next packet
comes), too large a one only memory; hence the lower bounds, which a small machine pays for with some MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from datapath import layout
from datapath.errors import InvalidSetting

RATIO: Final = 0.0025
# What an LRU entry takes in the kernel besides key and value: its hash and list nodes (48 bytes), and the bucket.
OVERHEAD_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Share:
    """:ivar part: of the memory for all three maps. `low`, `high`: bounds of the result, entries."""

    part: float
    entry_bytes: int
    low: int
    high: int


SHARES: Final[Mapping[str, Share]] = {
    "flows": Share(0.78, layout.FLOW_KEY_SIZE + layout.FLOW_SIZE + OVERHEAD_BYTES, 32_768, 4_194_304),
    "nat": Share(0.20, layout.NAT_KEY_SIZE + layout.NAT_SIZE + OVERHEAD_BYTES, 16_384, 4_194_304),
    "fragments": Share(0.02, layout.FRAGMENT_KEY_SIZE + layout.FRAGMENT_SIZE + OVERHEAD_BYTES, 4_096, 65_536),
}
_LEAST, _MOST = 1024, 1 << 26


@dataclass(frozen=True, slots=True)
class Sizing:
    """What an administrator may set.

    :ivar ratio: of RAM for all connection maps together; more than 0, at most 0.2.
    :ivar entries: sizes that are not to be computed, by the map's name.
    """

    ratio: float = RATIO
    entries: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 0.2:
            raise InvalidSetting(f"{self.ratio} is not in 0..0.2", field="map_ratio", remedy="the default is 0.0025")
        for name, entries in self.entries.items():
            if name not in SHARES:
                known = ", ".join(SHARES)
                raise InvalidSetting(f"there is no map {name!r}; there are {known}", field="map_entries")
            if not _LEAST <= entries <= _MOST:
                raise InvalidSetting(f"{entries} entries are not in {_LEAST}..{_MOST}", field=f"map_entries.{name}")


def sizes(memory_bytes: int, wanted: Sizing | None = None) -> dict[str, int]:
    """Entries of each map, for the loader. Multiples of 1024, so that a few bytes of memory more or less (a kernel's
    update reserves some) do not ask for other maps than those that are pinned."""
    wanted = wanted or Sizing()
    found = {}
    for name, share in SHARES.items():
        entries = int(memory_bytes * wanted.ratio * share.part / share.entry_bytes)
        # A sixteenth of the leading power of two: steps that memory's small changes seldom cross.
        step = max(1024, 1 << max(entries.bit_length() - 5, 0))
        found[name] = wanted.entries.get(name, min(max(entries // step * step, share.low), share.high))
    return found
