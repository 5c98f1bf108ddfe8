"""A fake of maps.MapLike, shipped: a map in memory that counts what it is asked."""

from __future__ import annotations

import errno
import itertools
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from datapath.errors import BpfRefused
from datapath.maps import slices


class FakeMap:
    """Implements maps.MapLike and maps.InnerMap in memory.

    `kind`: "hash"; "lru": the oldest entry gives way when it is full; "lpm": as a hash, and `lookup` finds the
    longest prefix (keys begin with its length in bits); "array": every index is there, zero at first; "outer": a hash
    whose values are other FakeMaps' descriptors. `calls` counts system calls that a real map would cost, by name;
    `on_batch` is called with each batch before it is handed out: a test's chance to meddle.
    """

    _numbers = itertools.count(1000)
    by_descriptor: ClassVar[weakref.WeakValueDictionary[int, FakeMap]] = weakref.WeakValueDictionary()

    def __init__(self, key_size: int, value_size: int, max_entries: int = 1 << 20, kind: str = "hash") -> None:
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.kind = kind
        self.entries: dict[bytes, bytes] = {}
        self.calls: Counter[str] = Counter()
        self.on_batch: Callable[[bytes], None] | None = None
        self.fd = next(self._numbers)
        self.closed = False
        self.by_descriptor[self.fd] = self
        self._lock = threading.RLock()
        self._inner: dict[bytes, FakeMap] = {}
        if kind == "array":
            zero = bytes(value_size)
            self.entries = {index.to_bytes(4, sys.byteorder): zero for index in range(max_entries)}

    def lookup(self, key: bytes) -> bytes | None:
        with self._lock:
            self.calls["lookup"] += 1
            if self.kind != "lpm":
                return self.entries.get(key)
            for bits in range(int.from_bytes(key[:4], sys.byteorder), -1, -1):
                found = self.entries.get(_prefix(key, bits))
                if found is not None:
                    return found
            return None

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        self._put([key], [value], flags, "update")

    def delete(self, key: bytes) -> bool:
        with self._lock:
            self.calls["delete"] += 1
            self._refuse_array("delete from")
            self._inner.pop(key, None)
            return self.entries.pop(self._normal(key), None) is not None

    def keys_batches(self, size: int = 4096) -> Iterator[tuple[bytes, bytes, int]]:
        with self._lock:
            keys = list(self.entries)
        for start in range(0, len(keys), size):
            with self._lock:
                part = [key for key in keys[start : start + size] if key in self.entries]
                self.calls["lookup_batch"] += 1
                joined, values = b"".join(part), b"".join(self.entries[key] for key in part)
            if self.on_batch is not None:
                self.on_batch(joined)
            yield joined, values, len(part)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        yield from list(self.entries.items())

    def update_batch(self, keys: bytes, values: bytes, count: int) -> None:
        key_list = list(slices(keys, self.key_size, count))
        self._put(key_list, list(slices(values, self.value_size, count)), 0, "update_batch")

    def delete_batch(self, keys: bytes, count: int) -> int:
        with self._lock:
            self.calls["delete_batch"] += 1
            self._refuse_array("delete from")
            gone = [self.entries.pop(self._normal(key), None) for key in slices(keys, self.key_size, count)]
            return len(gone) - gone.count(None)

    def inner(self, key: bytes) -> FakeMap | None:
        """Of an outer map: what lies there."""
        return self._inner.get(key)

    def close(self) -> None:
        self.closed = True

    def _put(self, keys: Sequence[bytes], values: Sequence[bytes], flags: int, call: str) -> None:
        with self._lock:
            self.calls[call] += 1
            for key, value in zip(keys, values, strict=True):
                self._put_one(self._normal(key), value, flags)

    def _put_one(self, key: bytes, value: bytes, flags: int) -> None:
        if len(key) != self.key_size or len(value) != self.value_size:
            raise ValueError(
                f"key of {len(key)} and value of {len(value)} bytes, not {self.key_size}, {self.value_size}"
            )
        there = key in self.entries
        if flags == 1 and there:
            raise BpfRefused("update a map's entry", errno.EEXIST)
        if flags == 2 and not there:
            raise BpfRefused("update a map's entry", errno.ENOENT)
        if not there and len(self.entries) >= self.max_entries:
            if self.kind != "lru":
                raise BpfRefused("update a map's entry", errno.E2BIG)
            del self.entries[next(iter(self.entries))]
        if self.kind == "outer":
            self._inner[key] = self.by_descriptor[int.from_bytes(value, sys.byteorder)]
        self.entries[key] = value

    def _normal(self, key: bytes) -> bytes:
        return _prefix(key, int.from_bytes(key[:4], sys.byteorder)) if self.kind == "lpm" else key

    def _refuse_array(self, what: str) -> None:
        if self.kind == "array":
            raise BpfRefused(f"{what} an array", errno.EINVAL)


def _prefix(key: bytes, bits: int) -> bytes:
    """The key with only its first `bits` kept, as an LPM trie sees it."""
    length = (len(key) - 4) * 8
    number = int.from_bytes(key[4:], "big") >> (length - bits) << (length - bits)
    return bits.to_bytes(4, sys.byteorder) + number.to_bytes(len(key) - 4, "big")
