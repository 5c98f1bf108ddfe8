"""Whether a pinned map still means what this build means by it, and how an old one becomes a new one.

A ledger, itself a pinned map, holds for each map's id the LAYOUT_VERSION and a digest of its layout: type, flags,
sizes, and every field of key and value. The entry is written before the map is pinned, so a pin always has one. The
step that counts is the rename of a pin, which the kernel does at once: whoever is killed before or after leaves the old
map or the new one, whole.

    NAME        the map in force
    NAME~new    made, not in force yet: a leftover is removed
    NAME~old    was in force until the programs have been replaced; `settle` takes over what they wrote meanwhile
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datapath.errors import BpfRefused, LayoutChanged, NotLoaded
from datapath.loader import maps, syscalls
from datapath.loader.btf import Btf
from datapath.loader.maps import Map, pinned_if_any
from datapath.loader.syscalls import NEW, OLD

LEDGER: Final = "layout"
_LEDGER_ENTRIES: Final = 1024
_ENTRY: Final = struct.Struct("=I32s")
_LRU: Final = frozenset({maps.LRU_HASH, maps.LRU_PERCPU_HASH})
# Maps whose content is not entries of ours: a new one begins empty.
_WITHOUT_ENTRIES: Final = frozenset({maps.RINGBUF, maps.PROG_ARRAY, maps.PERF_EVENT_ARRAY, maps.SOCKMAP, maps.SOCKHASH})

Convert = Callable[[bytes, bytes], tuple[bytes, bytes] | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """:ivar text: canonical words; equal words are equal layouts."""

    version: int
    text: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Migration:
    """How entries of `map` that were written under `version` with values of `value_size` bytes become today's.

    :ivar convert: (key, value) to both anew, or to None to leave the entry out. None in its place: as they are."""

    map: str
    version: int
    value_size: int
    convert: Convert | None = None


class Ledger:
    """What layout each of our maps has."""

    def __init__(self, folder: Path) -> None:
        path = folder / LEDGER
        found = pinned_if_any(path)
        if found is None:
            found = Map.create(maps.HASH, 4, _ENTRY.size, _LEDGER_ENTRIES, name="layout")
            found.pin(path)
        self._map = found

    def close(self) -> None:
        self._map.close()

    def record(self, one: Map, layout: Layout) -> None:
        self._map.update(struct.pack("=I", one.id), _ENTRY.pack(layout.version, layout.digest))

    def find(self, one: Map) -> tuple[int, bytes]:
        """Version and digest; 0 if the map is none of ours."""
        value = self._map.lookup(struct.pack("=I", one.id))
        return _ENTRY.unpack(value) if value else (0, b"")

    def forget_gone(self) -> None:
        """Ids of maps that exist no more."""
        for key, _ in list(self._map.items()):
            try:
                Map.by_id(struct.unpack("=I", key)[0]).close()
            except NotLoaded:
                self._map.delete(key)


def describe(kind: int, flags: int, key: str, value: str, inner: str = "") -> str:
    return f"type {kind}, flags {flags:#x}, key {key}, value {value}" + (f", inner maps ({inner})" if inner else "")


def described_by_kernel(one: Map) -> str:
    """The layout of a map that exists, as far as the kernel remembers it."""
    key, value = f"{one.key_size} bytes", f"{one.single_value_size} bytes"
    if one.btf_id and one.btf_value:
        btf = Btf.of_id(one.btf_id)
        key, value = btf.describe(one.btf_key), btf.describe(one.btf_value)
    return describe(one.type, one.flags, key, value)


def migration_for(
    name: str, found: Map, recorded: tuple[int, bytes], layout: Layout, migrations: Sequence[Migration]
) -> Migration | None:
    """What to do with the entries of a pinned map; None: it is as this build has it.

    Raises LayoutChanged if nothing is known to do."""
    version, digest = recorded
    if (version, digest) == (layout.version, layout.digest):
        return None
    for one in migrations:
        if (one.map, one.version, one.value_size) == (name, version, found.single_value_size):
            return one
    raise LayoutChanged(
        name, f"layout {version}: {described_by_kernel(found)}", f"layout {layout.version}: {layout.text}"
    )


def copy(old: Map, new: Map, convert: Convert | None = None) -> int:
    """All entries from one map to another. Raises BpfRefused, such as E2BIG if the new one is too small."""
    if old.type in _WITHOUT_ENTRIES:
        return 0
    copied = 0
    for keys, values, count in old.keys_batches():
        if old.type in (maps.HASH_OF_MAPS, maps.ARRAY_OF_MAPS):
            copied += _copy_inner(new, keys, values, count)
            continue
        if new.type in (maps.ARRAY, maps.PERCPU_ARRAY):
            count = max(0, min(count, new.max_entries - struct.unpack_from("=I", keys)[0]))
            keys, values = keys[: count * old.key_size], values[: count * old.value_size]
        if convert is not None:
            keys, values, count = _converted(old, keys, values, count, convert)
        new.update_batch(keys, values, count)
        copied += count
    return copied


def _copy_inner(new: Map, keys: bytes, ids: bytes, count: int) -> int:
    """Looking up in a map of maps gives ids; storing wants file descriptors."""
    opened: list[Map] = []
    try:
        kept = []
        for n, (number,) in enumerate(struct.iter_unpack("=I", ids[: count * 4])):
            try:
                opened.append(Map.by_id(number))
                kept.append(keys[n * new.key_size : (n + 1) * new.key_size])
            except NotLoaded:
                continue
        new.update_batch(b"".join(kept), b"".join(struct.pack("=I", one.fd) for one in opened), len(kept))
        return len(kept)
    finally:
        for one in opened:
            one.close()


def _converted(old: Map, keys: bytes, values: bytes, count: int, convert: Convert) -> tuple[bytes, bytes, int]:
    k, v = old.key_size, old.value_size
    pairs = (convert(keys[n * k : n * k + k], values[n * v : n * v + v]) for n in range(count))
    kept = [pair for pair in pairs if pair is not None]
    return b"".join(pair[0] for pair in kept), b"".join(pair[1] for pair in kept), len(kept)


def swap(old: Map, new: Map, path: Path, migration: Migration | None) -> None:
    """Puts `new`, filled from `old`, in force at `path`. The old one stays beside until it is settled."""
    try:
        copy(old, new, migration.convert if migration else None)
    except BpfRefused as refused:
        remedy = "raise the size of this map, or run `plimsoll node cleanup` (open connections are forgotten)"
        raise BpfRefused(
            f"move the entries of map {path.name} to one of {new.max_entries}", refused.errno, remedy
        ) from refused
    beside = path.with_name(path.name + OLD)
    settle(path)
    syscalls.replace_pin(old.fd, beside)
    syscalls.replace_pin(new.fd, path)


def settle(path: Path) -> int:
    """Takes over what programs wrote into the map before after it had been copied, and lets go of it. Returns how many
    entries that were. To be called once all programs use the map in force; only LRU maps are written by programs."""
    beside = path.with_name(path.name + OLD)
    old = pinned_if_any(beside)
    if old is None:
        return 0
    moved = 0
    with old, Map.pinned(path) as new:
        if old.type in _LRU and old.key_size == new.key_size and old.value_size == new.value_size:
            known = {key for key, _ in new.items()}
            late = [(key, value) for key, value in old.items() if key not in known]
            new.update_batch(b"".join(key for key, _ in late), b"".join(value for _, value in late), len(late))
            moved = len(late)
    beside.unlink(missing_ok=True)
    return moved


def settle_all(folder: Path) -> int:
    """Every map of the folder that has one to be settled beside it."""
    names = [path.name.removesuffix(OLD) for path in folder.iterdir() if path.name.endswith(OLD)]
    return sum(settle(folder / name) for name in names)


def remove_leftovers(folder: Path) -> None:
    """What somebody who was killed had not put in force yet."""
    for path in folder.iterdir():
        if path.name.endswith(NEW):
            path.unlink(missing_ok=True)
