"""Everything of ours that stays in the kernel when the daemon ends: listed, and removed."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from datapath.errors import BpfError, BpfRefused
from datapath.loader import bpffs, legacy, links
from datapath.loader.links import Link
from datapath.loader.programs import Program

LINKS, MAPS, PROGRAMS = "links", "maps", "programs"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is, in words. :ivar filters: "DEVICE ingress" of the calling thread's network namespace."""

    links: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.links or self.maps or self.programs or self.filters)


def inventory(root: Path) -> Inventory:
    """What is pinned under <bpf_dir>, and our filters on devices."""
    filters = [
        f"{name} {'ingress' if one.ingress else 'egress'}"
        for index, name in socket.if_nameindex()
        for one in legacy.ours(index)
    ]
    return Inventory(_names(root / LINKS), _names(root / MAPS), _names(root / PROGRAMS), tuple(filters))


def remove(root: Path) -> Inventory:
    """Detaches all links and filters, then removes programs and maps and the folders. Returns what there was.

    Packets flow by the kernel's own routes from then on. A second call finds nothing and is no error."""
    found = inventory(root)
    for path in _entries(root / LINKS):
        try:
            links.pinned(path).detach()
        except BpfError:  # no link: somebody else's, or half made
            path.unlink(missing_ok=True)
    for index, _ in socket.if_nameindex():
        for one in legacy.ours(index):
            one.detach()
    for folder in (root / PROGRAMS, root / MAPS):
        for path in _entries(folder):
            path.unlink(missing_ok=True)
    for folder in (root / LINKS, root / PROGRAMS, root / MAPS, root):
        _remove_if_empty(folder)
    return found


def _remove_if_empty(folder: Path) -> None:
    if not folder.is_dir():
        return
    mounted = folder.is_mount()
    # At the top of a bpffs, names with dots are the kernel's own (maps.debug, progs.debug).
    if any(not (mounted and "." in path.name) for path in folder.iterdir()):
        return
    if mounted:
        try:
            bpffs.unmount(folder)
        except BpfRefused:  # somebody is in it
            return
    folder.rmdir()


def detach_gone(root: Path) -> tuple[str, ...]:
    """Removes pins of links whose device or cgroup is gone; the kernel has detached those itself."""
    removed = []
    for path in _entries(root / LINKS):
        link: Link = links.pinned(path)
        if link.attached():
            link.close()
        else:
            link.detach()
            removed.append(path.name)
    return tuple(removed)


def pin_programs(root: Path, programs: dict[str, Program]) -> None:
    """Under their names, in place of those of the build before."""
    folder = bpffs.folder(root, PROGRAMS)
    for name, program in programs.items():
        program.pin(folder / name)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(path.name for path in _entries(folder))
