"""Compiles what the benches need, into build/bench; up to date files stay."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
OUT: Final = HERE.parents[2] / "build" / "bench"
_BPF: Final = ["clang-19", "-target", "bpf", "-O2", "-g", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"]
_C: Final = ["cc", "-O2", "-Wall", "-Wextra", "-Werror"]


def bpf_object(name: str) -> Path:
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    return _built(HERE / f"{name}.bpf.c", OUT / f"{name}.bpf.o", [*_BPF, include, "-c"])


def program(name: str) -> Path:
    return _built(HERE / f"{name}.c", OUT / name, _C)


def _built(source: Path, to: Path, command: list[str]) -> Path:
    newest = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if not to.exists() or to.stat().st_mtime < newest:
        to.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*command, str(source), "-o", str(to)], check=True)
    return to
