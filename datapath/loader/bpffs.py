"""The file system that pins live in.

A mount is seen only in the mount namespace it was made in, and those made from it later. `ip netns exec` makes a new
one each time, with a fresh /sys: a daemon that is started by it should be given a bpf_dir outside /sys, on a bpffs that
was mounted before; else its pins end with it.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Final

from datapath.errors import BpfRefused

STANDARD: Final = Path("/sys/fs/bpf")
_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_libc = ctypes.CDLL(None, use_errno=True)


def file_system(path: Path) -> str:
    """Type of the file system that `path` is on, or its nearest parent that exists."""
    while not path.exists():
        path = path.parent
    real = str(path.resolve())
    kind, longest = "", -1
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda hit: chr(int(hit[1], 8)), before.split(" ")[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two mounts on one point, the later covers the earlier
            kind, longest = after.split(" ")[0], len(point)
    return kind


def mount(path: Path) -> None:
    """A bpffs of its own at `path`. Raises BpfRefused."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpfRefused(f"make the folder {path}", error.errno or 0) from error
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", _NOSUID_NODEV_NOEXEC, b"mode=0700") != 0:
        raise BpfRefused(f"mount bpffs at {path}", ctypes.get_errno())


def unmount(path: Path) -> None:
    """Raises BpfRefused."""
    if _libc.umount2(os.fsencode(path), 0) != 0:
        raise BpfRefused(f"unmount bpffs at {path}", ctypes.get_errno())


def folder(root: Path, name: str = "") -> Path:
    """The folder `name` under `root` on a bpffs; mounted where the standard one is missing, or at `root` itself."""
    if file_system(root) != "bpf":
        mount(STANDARD if root.is_relative_to(STANDARD) else root)
    path = root / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
