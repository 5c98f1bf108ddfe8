"""Every branch of the eBPF programs is taken by a test, or `unreachable.txt` says why none can."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.datapath.accelerated import cgroups
from tests.datapath.compiled import ROOT
from tests.datapath.coverage.__main__ import report
from tests.datapath.coverage.branches import Branch
from tests.datapath.coverage.unreachable import explain, read

TAKEN = Branch("include/flow.h", 7, 9, "track", "run", True, 3)
MISSED = replace(TAKEN, outcome=False, taken=0)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.tool("clang-19", "bpftool", "make", "ip", "llvm-cov-19", "llvm-profdata-19", "llvm-nm-19", "llvm-strip-19")
@pytest.mark.skipif(cgroups() is None, reason="needs cgroup2")
def test_every_branch_is_taken_or_explained() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.datapath.coverage"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_reasons_are_for_the_lines_below_them() -> None:
    one, other, last = read("# Why\n# it is so.\na, b: true: x: y\n*: false?: z\n\n# Another.\nc: false: z\n")
    assert (one.functions, one.outcome, one.condition, one.reason) == (("a", "b"), True, "x: y", "Why it is so.")
    assert (other.functions, other.outcome, other.elsewhere) == (("*",), False, True)
    assert (last.reason, last.line) == ("Another.", 7)


@pytest.mark.parametrize("text", ["a: true: x", "# Why\n\na: true: x", "# Why\na: maybe: x"])
def test_what_explains_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="wants a reason"):
        read(text)


@pytest.mark.parametrize(
    ("line", "explained"),
    [
        ("*: false: run", True),
        ("granted, track: false: run", True),
        ("granted: false: run", False),
        ("track: true: run", False),
        ("track: false: !run", False),
    ],
)
def test_a_line_is_for_one_outcome_of_a_condition(line: str, explained: bool) -> None:
    [one] = read(f"# Why\n{line}")
    assert explain([one], [MISSED]) == ([] if explained else [MISSED])
    assert one.explains == ([MISSED] if explained else [])


def test_what_is_missing_and_what_is_stale_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = iter(["# Why\ntrack: false: run", "# Why\n*: true: gone", "# Why\ntrack: false: run\n*: true?: gone"])
    monkeypatch.setattr(
        "tests.datapath.coverage.__main__.unreachable.read", lambda text: read(next(tables)), raising=True
    )
    assert report([TAKEN, MISSED], 1.0) == 0
    assert "1 of 1 branches taken (100.0%), 1 more cannot be" in capsys.readouterr().out
    assert report([TAKEN, MISSED], 1.0) == 1
    said = capsys.readouterr().out
    assert "bpf/include/flow.h:7:9: track: never false: run" in said
    assert "unreachable.txt:2: *: gone: explains no branch" in said
    assert report([TAKEN, MISSED], 1.0) == 0, "other kernels have that one"
