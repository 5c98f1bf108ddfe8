"""What the parts of the datapath ask of a BPF map, so that each can be tried on one in memory.

Keys and values are bytes as bpf/include/types.h lays them out. Batches are keys, and values, one after the other
without a gap. All calls block for microseconds to milliseconds and may come from any thread. The kernel's refusals
are raised as BpfRefused with its errno: E2BIG when the map is full, ENOENT never (absence is an answer).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class MapLike(Protocol):
    """A map of the kernel (loader.maps.Map) or of memory (testing.FakeMap)."""

    @property
    def key_size(self) -> int: ...

    @property
    def value_size(self) -> int: ...

    @property
    def max_entries(self) -> int: ...

    def lookup(self, key: bytes) -> bytes | None: ...

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """`flags`: 0 whatever is there, 1 (BPF_NOEXIST) only if nothing is, 2 (BPF_EXIST) only if something is."""

    def delete(self, key: bytes) -> bool:
        """False: it was not there."""

    def keys_batches(self, size: int = 4096) -> Iterator[tuple[bytes, bytes, int]]:
        """Keys, values and how many, for all entries. What is added or deleted meanwhile may be seen or not; an entry
        that stays is seen once."""

    def update_batch(self, keys: bytes, values: bytes, count: int) -> None: ...

    def delete_batch(self, keys: bytes, count: int) -> int:
        """How many were there."""


class InnerMap(MapLike, Protocol):
    """A map that is to be put into another one: by its descriptor, which may be closed afterwards."""

    @property
    def fd(self) -> int: ...

    def close(self) -> None: ...


def slices(data: bytes, size: int, count: int) -> list[bytes]:
    """The entries of a batch, one by one."""
    return [data[start : start + size] for start in range(0, size * count, size)]
