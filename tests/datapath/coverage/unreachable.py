"""Branches that no packet takes, each with the reason: `unreachable.txt`.

A paragraph begins with the reason, in lines that begin with "#". Each line after it is `functions: outcome: condition`,
the condition as the source has it, in one line; "*" for any function. A line that explains nothing is an error: it is
of code that is gone, or of a branch that is taken now. "true?" and "false?" are of branches that other kernels take.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.datapath.coverage.branches import Branch

TABLE: Final = Path(__file__).with_name("unreachable.txt")


@dataclass(slots=True)
class Explanation:
    """:ivar line: of the table. :ivar elsewhere: other kernels take it. :ivar explains: branches."""

    line: int
    functions: tuple[str, ...]
    outcome: bool
    elsewhere: bool
    condition: str
    reason: str
    explains: list[Branch] = field(default_factory=list)

    def fits(self, branch: Branch) -> bool:
        return (
            ("*" in self.functions or branch.function in self.functions)
            and self.outcome == branch.outcome
            and self.condition == branch.condition
        )

    def __str__(self) -> str:
        return f"{TABLE.name}:{self.line}: {', '.join(self.functions)}: {self.condition}"


def read(text: str) -> list[Explanation]:
    """Raises ValueError."""
    found: list[Explanation] = []
    reason: list[str] = []
    described = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            if described:
                reason = []
            described = False
            reason.append(line.removeprefix("#").strip())
        elif not line.strip():
            reason, described = [], False
        else:
            functions, outcome, condition = (part.strip() for part in line.split(":", 2))
            if not reason or outcome.rstrip("?") not in ("true", "false"):
                raise ValueError(f"{TABLE.name}:{number}: wants a reason before, and `function: true|false: condition`")
            described = True
            found.append(
                Explanation(
                    number, tuple(one.strip() for one in functions.split(",")), outcome.startswith("true"),
                    outcome.endswith("?"), condition, " ".join(reason),
                )
            )  # fmt: skip
    return found


def explain(explanations: Iterable[Explanation], missed: Iterable[Branch]) -> list[Branch]:
    """What is left without a reason. Notes in each explanation what it explains."""
    left = []
    for branch in missed:
        fitting = [one for one in explanations if one.fits(branch)]
        for one in fitting:
            one.explains.append(branch)
        if not fitting:
            left.append(branch)
    return left
