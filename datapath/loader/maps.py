"""eBPF maps: single entries, batches, memory. Keys and values are bytes; datapath/layout.py knows what they mean.

Safe to use from several threads. A batch costs one system call for thousands of entries (2-3 M entries/s; one by one
some 400,000): prefer it. Every single update of a map of maps waits 8 ms for the kernel's grace period, and so does a
whole batch of them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap as memory
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from datapath.errors import BpfRefused, NotLoaded
from datapath.loader import syscalls
from datapath.loader.syscalls import (
    ENOTSUPP,
    Command,
    MapBatch,
    MapCreate,
    MapElement,
    MapInfo,
    MapStore,
)

HASH, ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_HASH, PERCPU_ARRAY = range(1, 7)
LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS = range(9, 14)
SOCKMAP, SOCKHASH, RINGBUF = 15, 18, 27
_PER_CPU: Final = frozenset({PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, 21})
_ARRAYS: Final = frozenset({ARRAY, PERCPU_ARRAY, ARRAY_OF_MAPS, PROG_ARRAY})

ANY, NO_EXIST, EXIST = 0, 1, 2
NO_PREALLOC, MMAPABLE, INNER_MAP = 1, 1 << 10, 1 << 12
_NO_BATCHES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP})
_MOST_IN_BATCH: Final = 1 << 20


def _possible_cpus() -> int:
    """How many values a per-CPU entry has."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace("-", ",").split(",")[-1]
    return int(last) + 1


CPUS: Final = _possible_cpus()


class Map:
    """An open map. :ivar value_size: of what look-ups return: for per-CPU maps all CPUs' values, each rounded to 8."""

    def __init__(self, fd: int, name: str = "") -> None:
        """Takes over the file descriptor."""
        self.fd = fd
        info = syscalls.fill_info(fd, MapInfo())
        self.name = name or info.name.decode()
        self.type, self.id, self.flags = int(info.type), int(info.id), int(info.flags)
        self.key_size, self.max_entries = int(info.key_size), int(info.max_entries)
        # As the kernel's one value has it; for per-CPU maps of one CPU, not rounded.
        self.single_value_size = int(info.value_size)
        per_cpu = self.type in _PER_CPU
        self.value_size = (self.single_value_size + 7 & ~7) * CPUS if per_cpu else self.single_value_size
        self.btf_id, self.btf_key, self.btf_value = int(info.btf_id), int(info.btf_key), int(info.btf_value)

    @classmethod
    def pinned(cls, path: Path) -> Map:
        """Raises NotLoaded, BpfRefused."""
        return cls(syscalls.pinned(path), path.name)

    @classmethod
    def by_id(cls, number: int) -> Map:
        """Raises NotLoaded, BpfRefused."""
        return cls(syscalls.by_id(Command.MAP_BY_ID, number))

    @classmethod
    def create(
        cls, kind: int, key_size: int, value_size: int, max_entries: int, *, flags: int = 0, name: str = "",
        inner: Map | None = None,
    ) -> Map:  # fmt: skip
        """A map of its own, such as one to put into a map of maps. It lives while something holds it."""
        attribute = MapCreate(
            type=kind, key_size=key_size, value_size=value_size, max_entries=max_entries, flags=flags,
            inner_fd=inner.fd if inner is not None else 0, name=name.encode()[:15],
        )  # fmt: skip
        return cls(syscalls.asked(f"create map {name or '(unnamed)'}", Command.MAP_CREATE, attribute), name)

    def create_like(self, max_entries: int | None = None) -> Map:
        """An empty map of the same kind, for instance the next inner map of a map of maps."""
        return Map.create(
            self.type, self.key_size, self.single_value_size, max_entries or self.max_entries, flags=self.flags,
            name=self.name,
        )  # fmt: skip

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Map:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Map({self.name}, id {self.id}, {self.key_size} -> {self.single_value_size} bytes, {self.max_entries})"

    def pin(self, path: Path) -> None:
        """In place of what is pinned there."""
        syscalls.replace_pin(self.fd, path)

    def _refused(self, verb: str, error: OSError, done: int = 0) -> BpfRefused:
        said = ""
        if error.errno == errno.E2BIG:
            said = f"the map is full: {self.max_entries} entries"
        return BpfRefused(f"{verb} map {self.name}", error.errno or 0, said, done=done)

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name}: a key has {self.key_size} bytes, not {len(key)}")
        return key

    # ---- single entries ----

    def lookup(self, key: bytes) -> bytes | None:
        """Per-CPU maps: all CPUs' values joined."""
        value = ctypes.create_string_buffer(self.value_size)
        try:
            syscalls.call(Command.MAP_LOOKUP, MapElement(self.fd, self._key(key), ctypes.addressof(value)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise self._refused("look up in", error) from error
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Raises BpfRefused: E2BIG when full, EEXIST and ENOENT as `flags` ask."""
        if len(value) != self.value_size:
            raise ValueError(f"map {self.name}: a value has {self.value_size} bytes, not {len(value)}")
        try:
            syscalls.call(Command.MAP_UPDATE, MapStore(self.fd, self._key(key), value, flags))
        except OSError as error:
            raise self._refused("update", error) from error

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        try:
            syscalls.call(Command.MAP_DELETE, MapElement(self.fd, self._key(key)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise self._refused("delete from", error) from error
        return True

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after `key`; the first one for None. None at the end."""
        following = ctypes.create_string_buffer(self.key_size)
        try:
            syscalls.call(Command.MAP_NEXT_KEY, MapElement(self.fd, key, ctypes.addressof(following)))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise self._refused("walk", error) from error
        return following.raw

    # ---- batches ----

    def keys_batches(self, size: int = 4096) -> Iterator[tuple[bytes, bytes, int]]:
        """All entries as (keys, values, count), joined. Entries that come or go meanwhile may be told or not."""
        # Hash maps want room for their fullest bucket; the position is a bucket's number or a key.
        count, position = size, None
        following = ctypes.create_string_buffer(max(8, self.key_size))
        keys = ctypes.create_string_buffer(self.key_size * count)
        values = ctypes.create_string_buffer(self.value_size * count)
        began = False
        while True:
            batch = MapBatch(
                in_batch=ctypes.addressof(position) if position is not None else None,
                out_batch=ctypes.addressof(following), keys=ctypes.addressof(keys), values=ctypes.addressof(values),
                count=count, fd=self.fd,
            )  # fmt: skip
            ended = False
            try:
                syscalls.call(Command.MAP_LOOKUP_BATCH, batch)
            except OSError as error:
                if error.errno == errno.ENOSPC and count < _MOST_IN_BATCH:
                    count *= 2
                    keys = ctypes.create_string_buffer(self.key_size * count)
                    values = ctypes.create_string_buffer(self.value_size * count)
                    continue
                if error.errno in _NO_BATCHES and not began:
                    yield from self._walked(size)
                    return
                if error.errno not in (errno.ENOENT, errno.EINTR):
                    raise self._refused("read", error) from error
                # EINTR: the entry it had come to was deleted under its hands; it goes on from there.
                ended = error.errno == errno.ENOENT
            found = int(batch.count)
            if not (found or ended):
                continue
            began = True
            if found:
                yield _head(keys, found * self.key_size), _head(values, found * self.value_size), found
            if ended:
                return
            position = ctypes.create_string_buffer(following.raw, len(following))

    def _walked(self, size: int) -> Iterator[tuple[bytes, bytes, int]]:
        keys: list[bytes] = []
        values: list[bytes] = []
        key = self.next_key(None)
        while key is not None:
            value = self.lookup(key)
            if value is not None:
                keys.append(key)
                values.append(value)
            if len(keys) == size:
                yield b"".join(keys), b"".join(values), len(keys)
                keys, values = [], []
            key = self.next_key(key)
        if keys:
            yield b"".join(keys), b"".join(values), len(keys)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        k, v = self.key_size, self.value_size
        for keys, values, count in self.keys_batches():
            for n in range(count):
                yield keys[n * k : n * k + k], values[n * v : n * v + v]

    def update_batch(self, keys: bytes, values: bytes, count: int, flags: int = ANY) -> None:
        """Raises BpfRefused whose `done` says how many were stored before it."""
        if len(keys) != count * self.key_size or len(values) != count * self.value_size:
            raise ValueError(f"map {self.name}: {count} entries do not take {len(keys)} and {len(values)} bytes")
        if not count:
            return
        key_pointer, value_pointer = ctypes.c_char_p(keys), ctypes.c_char_p(values)
        batch = MapBatch(
            keys=ctypes.cast(key_pointer, ctypes.c_void_p), values=ctypes.cast(value_pointer, ctypes.c_void_p),
            count=count, fd=self.fd, element_flags=flags,
        )  # fmt: skip
        try:
            syscalls.call(Command.MAP_UPDATE_BATCH, batch)
        except OSError as error:
            if error.errno in _NO_BATCHES and not 0 < batch.count < count:
                self._update_each(keys, values, count, flags)
                return
            # Refusals that come before any entry leave the count as it was.
            raise self._refused("update", error, int(batch.count) % count) from error

    def _update_each(self, keys: bytes, values: bytes, count: int, flags: int) -> None:
        k, v = self.key_size, self.value_size
        for n in range(count):
            try:
                self.update(keys[n * k : n * k + k], values[n * v : n * v + v], flags)
            except BpfRefused as refused:
                refused.done = n
                raise

    def delete_batch(self, keys: bytes, count: int) -> int:
        """How many were deleted; those that are not there are no error."""
        if len(keys) != count * self.key_size:
            raise ValueError(f"map {self.name}: {count} keys do not take {len(keys)} bytes")
        pointer = ctypes.c_char_p(keys)
        start = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        position = deleted = 0
        while position < count:
            batch = MapBatch(keys=start + position * self.key_size, count=count - position, fd=self.fd)
            try:
                syscalls.call(Command.MAP_DELETE_BATCH, batch)
                return deleted + int(batch.count)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    deleted += int(batch.count)
                    position += int(batch.count) + 1
                elif error.errno in _NO_BATCHES and not 0 < batch.count < count - position:
                    k = self.key_size
                    return deleted + sum(self.delete(keys[n * k : n * k + k]) for n in range(position, count))
                else:
                    raise self._refused("delete from", error, deleted + int(batch.count)) from error
        return deleted

    def clear(self) -> None:
        """Deletes every entry; arrays cannot."""
        for keys, _, count in list(self.keys_batches()):
            self.delete_batch(keys, count)

    def __len__(self) -> int:
        """Entries; counts them all."""
        return sum(count for _, _, count in self.keys_batches())

    # ---- memory ----

    def mmap(self) -> memoryview:
        """The values of an array with BPF_F_MMAPABLE, each rounded up to 8 bytes. Programs see writes at once."""
        length = (self.single_value_size + 7 & ~7) * self.max_entries
        page = memory.PAGESIZE
        try:
            view = memory.mmap(
                self.fd, (length + page - 1) // page * page, flags=memory.MAP_SHARED,
                prot=memory.PROT_READ | memory.PROT_WRITE,
            )  # fmt: skip
        except OSError as error:
            raise self._refused("map into memory", error) from error
        return memoryview(view)[:length]


def _head(buffer: ctypes.Array[ctypes.c_char], length: int) -> bytes:
    return ctypes.string_at(buffer, length)


def pinned_if_any(path: Path) -> Map | None:
    """The map pinned at `path`, if there is one."""
    try:
        return Map.pinned(path)
    except NotLoaded:
        return None
