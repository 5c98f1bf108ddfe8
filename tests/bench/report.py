"""Rows of measurements, and the table made of them."""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

_TARGET: Final = re.compile(r"(ratio )?(<=|>=) (\d+(?:\.\d+)?)")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    :ivar baseline: what something known achieves in the same run, in the same unit; None: there is nothing to compare.
    :ivar ratio: value / baseline unless given.
    :ivar target: "<= 6", ">= 3000", "ratio <= 0.5", or empty.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""

    def __post_init__(self) -> None:
        if self.target and not _TARGET.fullmatch(self.target):
            raise ValueError(f"target {self.target!r} is not like '<= 6' or 'ratio <= 0.5'")
        if self.ratio is None and self.baseline:
            object.__setattr__(self, "ratio", self.value / self.baseline)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        found = _TARGET.fullmatch(self.target)
        if found is None:
            return None
        measured = self.ratio if found[1] else self.value
        return measured is not None and _COMPARE[found[2]](measured, float(found[3]))


def machine() -> str:
    """The machine in a few words, for the head of a table: absolute values mean nothing without it."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {load:.1f}, {time.strftime('%Y-%m-%d')}"
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, which reads well on a terminal too."""
    head = ("measurement", "value", "unit", "baseline", "ratio", "target", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def as_json(rows: Sequence[Row]) -> str:
    return json.dumps({"machine": machine(), "rows": [asdict(row) | {"met": row.met} for row in rows]}, indent=2)


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    return (row.name, _number(row.value), row.unit, _number(row.baseline), _number(row.ratio), row.target, verdict)


def _number(value: float | None) -> str:
    """Three significant digits, no exponent."""
    if value is None:
        return ""
    if value != 0 and abs(value) < 1000:
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.6f}"
    return f"{value:,.0f}"
