"""Memory of processes, as the kernel counts it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.report import Row

_FIELD: Final = re.compile(r"^(VmHWM|VmRSS):\s+(\d+) kB$", re.MULTILINE)
_MAP: Final = re.compile(r"^(map_id|memlock):\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MB of 1,000,000 bytes, shared libraries included: now, and the most there ever was."""

    now_mb: float
    peak_mb: float


def memory_of(pid: int) -> Memory:
    """Raises OSError when there is no such process."""
    found = dict(_FIELD.findall(Path(f"/proc/{pid}/status").read_text()))
    return Memory(int(found["VmRSS"]) * 1024 / 1e6, int(found["VmHWM"]) * 1024 / 1e6)


def memory_rows(what: str, pids: Mapping[str, int], targets: Mapping[str, str] | None = None) -> list[Row]:
    """Two rows for each process by its name.

    :param targets: for the peaks, by the process's name.
    """
    rows = []
    for name, pid in pids.items():
        memory = memory_of(pid)
        target = (targets or {}).get(name, "")
        rows += [
            Row(f"{what}: memory of {name}", memory.now_mb, "MB"),
            Row(f"{what}: memory of {name}, peak", memory.peak_mb, "MB", target=target),
        ]
    return rows


def map_memory_mb(pid: int) -> float:
    """MB that the kernel takes for the BPF maps which the process holds. Needs root."""
    sizes = {}
    for each in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found = dict(_MAP.findall(each.read_text()))
        except FileNotFoundError:  # closed meanwhile
            continue
        if "map_id" in found:
            sizes[found["map_id"]] = int(found["memlock"])
    return sum(sizes.values()) / 1e6
