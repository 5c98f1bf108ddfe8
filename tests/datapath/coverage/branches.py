"""From counters to branches: each condition of the sources, and how often it was true and false."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.datapath.compiled import ROOT
from tests.datapath.coverage.build import FOLDER, Instrumented

SOURCES: Final = ROOT / "bpf"


@dataclass(frozen=True, slots=True)
class Branch:
    """One outcome of a condition. :ivar function: that it is written in; of a macro, one that uses it.
    :ivar taken: times; of all objects together."""

    file: str
    line: int
    column: int
    function: str
    condition: str
    outcome: bool
    taken: int

    def __str__(self) -> str:
        return f"bpf/{self.file}:{self.line}:{self.column}: {self.function}: never {self.words}: {self.condition}"

    @property
    def words(self) -> str:
        return "true" if self.outcome else "false"


def branches(built: Mapping[str, Instrumented], counters: Mapping[str, Sequence[int]]) -> list[Branch]:
    """All of the project's own sources. Objects without counters were never loaded: nothing of them was taken."""
    taken: dict[tuple[str, tuple[int, int, int, int]], list[int]] = {}
    functions: dict[tuple[str, tuple[int, int, int, int]], str] = {}
    for name, one in sorted(built.items()):
        for function in _exported(name, one, counters.get(name)):
            called = function["name"].rpartition(":")[2]
            for *span, true, false, file_number, _expanded, _kind in function["branches"]:
                path = Path(function["filenames"][file_number])
                # Without extent are those in macros of libbpf's: questions that the compiler answers.
                if not path.is_relative_to(SOURCES) or span[:2] == span[2:]:
                    continue
                key = (str(path.relative_to(SOURCES)), (span[0], span[1], span[2], span[3]))
                counts = taken.setdefault(key, [0, 0])
                counts[0] += true
                counts[1] += false
                functions.setdefault(key, called)
    return sorted(
        (
            Branch(file, span[0], span[1], functions[file, span], _text(file, span), outcome, counts[not outcome])
            for (file, span), counts in taken.items()
            for outcome in (True, False)
        ),
        key=lambda branch: (branch.file, branch.line, branch.column, not branch.outcome),
    )


def _exported(name: str, one: Instrumented, counters: Sequence[int] | None) -> Iterable[Mapping[str, Any]]:
    profile, text = FOLDER / f"{name}.profdata", FOLDER / f"{name}.proftext"
    text.write_text("\n".join(_profile(one, counters)) + "\n")
    subprocess.run(["llvm-profdata-19", "merge", str(text), "-o", str(profile)], check=True)
    done = subprocess.run(
        ["llvm-cov-19", "export", f"-instr-profile={profile}", str(one.mapping)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: Iterable[Mapping[str, Any]] = json.loads(done.stdout)["data"][0]["functions"]
    return found


def _profile(one: Instrumented, counters: Sequence[int] | None) -> Iterable[str]:
    for function in one.functions:
        first = function.offset // 8
        counts = counters[first : first + function.counters] if counters else [0] * function.counters
        yield from (function.name, str(function.checksum), str(function.counters), *map(str, counts), "")


def _text(file: str, span: tuple[int, int, int, int]) -> str:
    """What stands there, as one line."""
    first_line, first_column, last_line, last_column = span
    lines = list(_lines(file)[first_line - 1 : last_line])
    lines[-1] = lines[-1][: last_column - 1]
    lines[0] = lines[0][first_column - 1 :]
    return " ".join(" ".join(lines).split())


@functools.cache
def _lines(file: str) -> Sequence[str]:
    return (SOURCES / file).read_text().splitlines()
