"""The lab on a terminal: what it is busy with while it comes up, and the live table afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.fabric import Drops
from services.api.ipam.v1 import ipam_pb2

_MAX_ROWS: Final = 40
_MAX_PROBLEMS: Final = 3
_LINES_AROUND: Final = 13  # title, heads, totals, problems and the cursor's line
_HEADINGS: Final = ("node", "pods", "pool", "used", "cooling", "free", "interfaces", "state")
_WELL: Final = "green"


@dataclass(slots=True)
class Snapshot:
    """What the live table shows."""

    pools: Mapping[str, ipam_pb2.Pool] = field(default_factory=dict)
    pods: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, Any] = field(default_factory=dict)
    drops: Drops = field(default_factory=lambda: Drops(0, 0))
    pings_sent: int = 0
    pings_lost: int = 0
    problem: str = ""


class Steps:
    """Progress of the start as lines: on a terminal with a spinner below, in a log one line for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began: dict[str, float] = {}
        self._status = console.status("")

    def begin(self, step: str) -> None:
        self._began[step] = time.monotonic()
        self._show()

    def done(self, step: str) -> None:
        seconds = time.monotonic() - self._began.pop(step)
        self._console.print(f"[green]✓[/] {step} [dim]{seconds:.1f} s[/]", highlight=False)
        self._show()

    def warn(self, text: str) -> None:
        self._console.print(Text(f"! {text}", style="yellow"), soft_wrap=True)

    def _show(self) -> None:
        if not self._console.is_terminal:
            return
        if self._began:
            self._status.update(", ".join(self._began))
            self._status.start()
        else:
            self._status.stop()

    def close(self) -> None:
        self._status.stop()


def render(shown: Snapshot, name: str, *, height: int = 100) -> RenderableType:
    """The live table of the lab `name`, for a terminal of 80 columns and `height` lines, or more."""
    fits = max(1, min(_MAX_ROWS, height - _LINES_AROUND))
    table = Table(title=f"Plimsoll lab {name}", title_justify="left", caption_justify="left")
    table.box, table.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    for heading in _HEADINGS:
        left = heading in ("node", "state")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "state")
    pools = sorted(shown.pools.items(), key=lambda item: _natural(item[0]))
    # Nodes with something to tell come first when not all of them fit.
    if len(pools) > fits:
        pools.sort(key=lambda item: _state(item[1]).style == _WELL)
        table.caption = f"and {len(pools) - fits} more"
    for node, pool in pools[:fits]:
        table.add_row(
            node,
            str(shown.pods.get(node, 0)),
            str(pool.attached),
            str(pool.in_use),
            str(pool.cooling),
            str(pool.attached - pool.in_use - pool.cooling),
            f"{len(pool.interfaces)}/{pool.interface_limit or '?'}",
            _state(pool),
        )
    problems = [f"{node}: {pool.last_error}" for node, pool in pools if pool.last_error][:_MAX_PROBLEMS]
    return Group(table, _totals(shown), *(Text(each, style="red") for each in [*problems, shown.problem] if each))


def _totals(shown: Snapshot) -> Table:
    """What is counted over the whole lab: a name and its counts in each line."""
    calls, drops = shown.calls, shown.drops
    marks = sorted({_marks(pool.node.watermarks) for pool in shown.pools.values()})
    counts = Table.grid(padding=(0, 2))
    for what, told in (
        ("marks", "; ".join(marks) or "-"),
        ("cloud API", f"{calls.get('total', 0)} calls, {calls.get('mutating', 0)} mutating, "
                      f"{calls.get('throttled', 0)} throttled"),
        ("VPC drops", f"{drops.spoofed} foreign source, {drops.undelivered} to nobody"),
        ("pings", f"{shown.pings_sent - shown.pings_lost} of {shown.pings_sent} answered"),
    ):  # fmt: skip
        counts.add_row(Text(f" {what}", style="bold"), told)
    return counts


def _marks(marks: ipam_pb2.Watermarks) -> str:
    """Those that are set, in words."""
    told = [f"{marks.pre_allocate if marks.HasField('pre_allocate') else 8} addresses kept free"]
    told += [f"at least {marks.min_allocate} held"] if marks.min_allocate else []
    told += [f"at most {marks.max_allocate} held"] if marks.max_allocate else []
    return ", ".join(told)


def _state(pool: ipam_pb2.Pool) -> Text:
    if not pool.connected:
        return Text("not connected", style="red")
    if pool.last_error:
        return Text("fails, see below", style="red")
    if pool.needed:
        return Text(f"needs {pool.needed}", style="yellow")
    if pool.excess:
        return Text(f"{pool.excess} too many", style="yellow")
    return Text("in its marks", style=_WELL)


def _natural(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)
