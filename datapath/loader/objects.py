"""Loading an object file: constants, sizes, maps that are pinned already, programs."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from datapath.errors import BpfError, BpfRefused, NotLoaded
from datapath.layout import LAYOUT_VERSION
from datapath.loader import bpffs, layouts, libbpf
from datapath.loader.btf import Btf
from datapath.loader.layouts import Layout, Ledger, Migration
from datapath.loader.libbpf import Object
from datapath.loader.maps import Map, pinned_if_any
from datapath.loader.migrations import MIGRATIONS
from datapath.loader.programs import Program

_PACKAGE: Final = Path(__file__).parents[1]
_SUFFIX: Final = ".bpf.o"
# Maps that hold nothing beyond a packet or a jiffy: each object has its own, so that a new build may lay them out anew.
TRANSIENT: Final = frozenset({"budgets", "samples", "scratches"})


def find(name: str, folder: Path | None = None) -> Path:
    """The object file `name` ("pod"): in `folder` if given, else as `make bpf` built it in a clone, else as shipped.

    Raises NotLoaded."""
    places = [folder] if folder else [_PACKAGE.parent / "build" / "bpf", _PACKAGE / "objects"]
    for place in places:
        path = place / f"{name}{_SUFFIX}"
        if path.exists():
            return path
    looked = ", ".join(map(str, places))
    raise NotLoaded(f"there is no eBPF object {name}{_SUFFIX} in {looked}", remedy="build it with `make bpf`")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came out of an object file. Closing lets go of everything that is neither pinned nor attached."""

    programs: Mapping[str, Program]
    maps: Mapping[str, Map]
    folder: Path | None

    def settle(self) -> int:
        """To be called when all programs have been replaced: takes over what the former ones wrote into maps of another
        size meanwhile. Returns how many entries that were."""
        if self.folder is None:
            return 0
        with _locked(self.folder):
            return layouts.settle_all(self.folder)

    def close(self) -> None:
        for program in self.programs.values():
            program.close()
        for one in self.maps.values():
            one.close()

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: Path,
    *,
    pins: Path | None,
    rodata: Mapping[str, bytes] | None = None,
    sizes: Mapping[str, int] | None = None,
    only: Collection[str] | None = None,
    private: Collection[str] = TRANSIENT,
    version: int = LAYOUT_VERSION,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> Loaded:
    """Loads the programs of an object file into the kernel; nothing is attached.

    :param pins: folder on bpffs, mounted if need be; maps are shared under its `maps/` by name, and stay when the
        process ends. None: maps of its own.
    :param rodata: values of `const volatile` variables; shorter than the variable is an error, so is an unknown one.
    :param sizes: max_entries by map; those that the object lacks are ignored, so one table serves all objects. A pinned
        map of another size is replaced by one of this size with the same entries; one that is not named here only grows
        to the object's default, and never shrinks.
    :param only: names of programs to load; all by default.
    :param private: maps that are not shared, whatever is pinned: this object's own, gone with it.

    Raises VerifierRefused, LayoutChanged, NotLoaded, BpfRefused."""
    folder = bpffs.folder(pins, "maps") if pins is not None else None
    one = Object(path)
    try:
        btf = Btf(one.btf())
        _set_constants(one, btf, rodata or {})
        _set_sizes(one, sizes or {})
        if only is not None:
            for name, handle in one.programs():
                libbpf.library().bpf_program__set_autoload(handle, name in only)
        if folder is None:
            one.load()
            return Loaded(_programs(one), _maps(one), None)
        with _locked(folder):
            _load_with_pins(one, btf, folder, sizes or {}, private, version, migrations)
        return Loaded(_programs(one), _maps(one), folder)
    finally:
        one.close()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: a daemon may start before the former one has ended."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _set_constants(one: Object, btf: Btf, rodata: Mapping[str, bytes]) -> None:
    places = btf.section(".rodata")
    handle = next((handle for name, handle in one.maps() if name.endswith(".rodata")), None)
    for name, value in rodata.items():
        if name not in places or handle is None:
            raise BpfError(f"{one.path.name} has no constant {name!r}: it has {', '.join(sorted(places)) or 'none'}")
        offset, size = places[name]
        if len(value) != size:
            raise BpfError(f"{one.path.name}: constant {name!r} takes {size} bytes, not {len(value)}")
        room = ctypes.c_size_t()
        start = libbpf.library().bpf_map__initial_value(handle, ctypes.byref(room))
        if not start or offset + size > room.value:
            raise BpfError(f"{one.path.name}: constant {name!r} does not lie in .rodata")
        ctypes.memmove(start + offset, value, size)


def _set_sizes(one: Object, sizes: Mapping[str, int]) -> None:
    for name, handle in one.maps():
        if name in sizes:
            result = libbpf.library().bpf_map__set_max_entries(handle, sizes[name])
            if result:
                raise BpfRefused(f"give map {name} {sizes[name]} entries", -result)


def _own_maps(one: Object) -> Iterator[tuple[str, int]]:
    """Maps but those that hold global variables."""
    for name, handle in one.maps():
        if not libbpf.library().bpf_map__is_internal(handle):
            yield name, handle


def _layout(btf: Btf, handle: int, version: int) -> Layout:
    return Layout(version, _described(libbpf.library(), btf, handle))


def _described(library: Any, btf: Btf, handle: int) -> str:
    key_type, value_type = library.bpf_map__btf_key_type_id(handle), library.bpf_map__btf_value_type_id(handle)
    key = btf.describe(key_type) if key_type else f"{library.bpf_map__key_size(handle)} bytes"
    value = btf.describe(value_type) if value_type else f"{library.bpf_map__value_size(handle)} bytes"
    inner = library.bpf_map__inner_map(handle)
    return layouts.describe(
        library.bpf_map__type(handle), library.bpf_map__map_flags(handle), key, value,
        _described(library, btf, inner) if inner else "",
    )  # fmt: skip


def _load_with_pins(
    one: Object,
    btf: Btf,
    folder: Path,
    sizes: Mapping[str, int],
    private: Collection[str],
    version: int,
    migrations: Sequence[Migration],
) -> None:
    library = libbpf.library()
    layouts.remove_leftovers(folder)
    ledger = Ledger(folder)
    replaced: dict[str, tuple[Map, Migration | None]] = {}
    wanted: dict[str, tuple[int, Layout]] = {}
    opened: list[Map] = []
    try:
        for name, handle in _own_maps(one):
            if name in private:
                continue
            layout = _layout(btf, handle, version)
            found = pinned_if_any(folder / name)
            if found is None:
                wanted[name] = (handle, layout)
                continue
            opened.append(found)
            migration = layouts.migration_for(name, found, ledger.find(found), layout, migrations)
            asked = library.bpf_map__max_entries(handle)
            fits = found.max_entries == asked or (name not in sizes and found.max_entries > asked)
            if migration is None and fits:
                result = library.bpf_map__reuse_fd(handle, found.fd)
                if result:
                    raise BpfRefused(f"use the pinned map {name}", -result)
            else:
                wanted[name] = (handle, layout)
                replaced[name] = (found, migration)
        one.load()
        for name, (handle, layout) in wanted.items():
            with Map(os.dup(library.bpf_map__fd(handle)), name) as new:
                ledger.record(new, layout)
                if name in replaced:
                    layouts.swap(replaced[name][0], new, folder / name, replaced[name][1])
                else:
                    new.pin(folder / name)
        if wanted:
            ledger.forget_gone()
    finally:
        ledger.close()
        for found in opened:
            found.close()


def _programs(one: Object) -> dict[str, Program]:
    found = {}
    for name, handle in one.programs():
        fd = libbpf.library().bpf_program__fd(handle)
        if fd >= 0:
            found[name] = Program(os.dup(fd), name)
    return found


def _maps(one: Object) -> dict[str, Map]:
    found = {}
    for name, handle in one.maps():
        fd = libbpf.library().bpf_map__fd(handle)
        if fd >= 0:
            with suppress(NotLoaded):
                found[name] = Map(os.dup(fd), name)
    return found
