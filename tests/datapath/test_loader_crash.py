"""Killed at any step while maps are replaced: what is pinned is whole, and the next start finds every entry."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datapath.loader import syscalls
from datapath.loader.objects import load
from tests.datapath.compiled import bpf_folder, compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("clang-19", "bpftool", "make")]

COUNT = 500
_RUN_TO_THE_END = 200


@pytest.fixture
def folder() -> Iterator[Path]:
    with bpf_folder() as path:
        yield path


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Runs `work` in a process of its own that is killed before its `step`th change of pins or maps. Whether it was."""
    child = os.fork()
    if child == 0:
        left = step
        call, rename, unlink = syscalls.call, Path.rename, Path.unlink

        def counted() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def counting_call(command: syscalls.Command, attribute: object) -> int:
            if command in (
                syscalls.Command.OBJ_PIN, syscalls.Command.MAP_UPDATE, syscalls.Command.MAP_UPDATE_BATCH,
                syscalls.Command.MAP_DELETE, syscalls.Command.MAP_CREATE,
            ):  # fmt: skip
                counted()
            return call(command, attribute)  # type: ignore[arg-type]

        def counting_rename(path: Path, target: Path) -> Path:
            counted()
            return rename(path, target)

        def counting_unlink(path: Path, missing_ok: bool = False) -> None:
            counted()
            unlink(path, missing_ok)

        syscalls.call = counting_call
        Path.rename, Path.unlink = counting_rename, counting_unlink  # type: ignore[method-assign, assignment]
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_while_maps_grow(folder: Path) -> None:
    keys = struct.pack(f"={COUNT}I", *range(COUNT))
    with load(compiled("loader"), pins=folder) as first:
        first.maps["table"].update_batch(keys, bytes(8 * COUNT), COUNT)
        first.maps["facts"].update(b"fact", b"true")

    def grow(size: int) -> None:
        with load(compiled("loader"), pins=folder, sizes={"table": size, "facts": size, "lost": 2}) as one:
            one.settle()

    for step in range(_RUN_TO_THE_END):
        size = 2048 + 1024 * (step % 2)
        killed = killed_at(step, lambda size=size: grow(size))  # type: ignore[misc]
        with load(compiled("loader"), pins=folder) as after:
            assert len(after.maps["table"]) == COUNT
            assert after.maps["facts"].lookup(b"fact") == b"true"
            after.settle()
            assert len(after.maps["table"]) == COUNT
        assert not [path.name for path in (folder / "maps").iterdir() if "~" in path.name]
        if not killed:
            break
    assert step > 10, "the walk reached the end, and there were steps to be killed at"
    assert step < _RUN_TO_THE_END - 1


def test_killed_at_the_first_start(folder: Path) -> None:
    for step in range(_RUN_TO_THE_END):
        killed = killed_at(step, lambda: load(compiled("loader"), pins=folder).close())
        if not killed:
            break
    with load(compiled("loader"), pins=folder) as after:
        assert len(after.maps["table"]) == 0
    assert 10 < step < _RUN_TO_THE_END - 1
