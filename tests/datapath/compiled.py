"""eBPF objects for tests: the project's own, and small ones made for a purpose."""

from __future__ import annotations

import functools
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from datapath.loader import pins

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).parent / "bpf"
BUILT = ROOT / "build" / "bpf"
OBJECTS: Final = "PLIMSOLL_TEST_OBJECTS"  # environment: a folder of objects that are to be tested instead


@functools.cache
def build_programs() -> Path:
    """The folder of the project's objects, each built if it is not up to date."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "bpf")], check=True)
    return Path(os.environ.get(OBJECTS, BUILT))


@functools.cache
def compiled(name: str, *defines: str) -> Path:
    """The object of tests/datapath/bpf/NAME.bpf.c with macros defined."""
    target = BUILT / "test" / f"{'-'.join([name, *defines])}.bpf.o"
    subprocess.run(
        [
            "make", "-s", "-C", str(ROOT / "bpf"), "one", f"SOURCE={SOURCES / name}.bpf.c", f"TARGET={target}",
            f"DEFINES={' '.join(f'-D{one}' for one in defines)}",
        ],
        check=True,
    )  # fmt: skip
    return target


@contextmanager
def bpf_folder() -> Iterator[Path]:
    """A bpf_dir of its own; nothing of it is left."""
    root = Path("/sys/fs/bpf") / f"plimsoll-test-{secrets.token_hex(4)}"
    try:
        yield root
    finally:
        pins.remove(root)
    assert not root.exists()
