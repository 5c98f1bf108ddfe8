"""What the verifier has to look at: it gives up at a million instructions, and loading takes as long as that takes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

from datapath import layout
from tests.datapath.programs.bed import ProgramBed

BOUND: Final = 500_000
# Reasons that no row here can bring about.
ELSEWHERE: Final = {
    "DROP_PREFILTER": "bpf/xdp.bpf.c: tests/datapath/test_prefilter.py",
}


@pytest.mark.root
def test_verified_instructions(loaded: ProgramBed, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        for name, program in sorted(loaded.programs.items()):
            print(
                f"  {name:14} {program.verified_instructions:8,} verified, {program.instructions:6,} instructions, "
                f"{program.machine_bytes:6,} bytes"
            )
    too_complex = {
        name: program.verified_instructions
        for name, program in loaded.programs.items()
        if program.verified_instructions > BOUND
    }
    assert not too_complex


def test_every_reason_has_a_row() -> None:
    """A reason that types.h gets has to be in a test here, too."""
    reasons = {name for name in vars(layout) if name.startswith("DROP_")} - {"DROP_REASONS", "DROP_NONE"}
    tested = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in ("dropped", "parametrize"):
                tested |= {_name(one) for argument in node.args for one in ast.walk(argument)}
    assert reasons - tested == ELSEWHERE.keys()
    header = (Path(__file__).parents[3] / "bpf" / "include" / "types.h").read_text()
    assert {line.split()[1] for line in header.splitlines() if line.startswith("#define DROP_")} == {
        *reasons, "DROP_REASONS", "DROP_NONE",
    }  # fmt: skip


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
