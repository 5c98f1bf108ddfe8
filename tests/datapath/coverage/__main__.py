"""Runs the tests of single programs with counters in the programs, and tells which branches none of them took:
`python -m tests.datapath.coverage`. Fails if there is one that `unreachable.txt` does not explain."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import pytest

from tests.datapath.compiled import OBJECTS, ROOT
from tests.datapath.coverage import build, unreachable
from tests.datapath.coverage.branches import Branch, branches
from tests.datapath.coverage.record import Recorder

# Random ones are left out, lest a branch is taken on some days only; and long ones that take none that others do not.
TESTS: Final = ("programs", "test_acceleration.py", "test_acceleration_refused.py")
LEFT_OUT: Final = ("programs/test_complexity.py", "programs/test_fuzz.py", "programs/test_verdicts.py")
LEFT_OUT_WORDS: Final = ("random", "flood_is_bounded", "full_table")


def main() -> int:
    began = time.monotonic()
    folder = ROOT / "tests" / "datapath"
    os.environ[OBJECTS] = str(build.FOLDER)
    built = build.build()
    recorder = Recorder(built)
    status = pytest.main(
        ["-q", "-p", "no:cacheprovider", "-k", " and ".join(f"not {word}" for word in LEFT_OUT_WORDS),
         *(f"--ignore={folder / name}" for name in LEFT_OUT),
         *(str(folder / name) for name in TESTS)],
        plugins=[recorder],
    )  # fmt: skip
    if status:
        print("coverage: tests failed with counters in the programs", file=sys.stderr)
        return int(status)
    return report(branches(built, recorder.counters), time.monotonic() - began)


def report(found: list[Branch], took_s: float) -> int:
    """Prints what was not taken and why not; the exit code."""
    explanations = unreachable.read(unreachable.TABLE.read_text())
    missed = [branch for branch in found if not branch.taken]
    unexplained = unreachable.explain(explanations, missed)
    for branch in unexplained:
        print(branch)
    stale = [one for one in explanations if not one.explains and not one.elsewhere]
    for one in stale:
        print(f"{one}: explains no branch that was not taken")
    reachable = len(found) - len(missed) + len(unexplained)
    print(
        f"coverage: {reachable - len(unexplained)} of {reachable} branches taken "
        f"({1 - len(unexplained) / reachable:.1%}), {len(missed) - len(unexplained)} more cannot be; {took_s:.0f} s"
    )
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
