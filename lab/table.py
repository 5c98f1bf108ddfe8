"""The lab on a terminal: what it is busy with while it comes up, and the live table afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.fabric import Drops
from services.api.ipam.v1 import ipam_pb2

_MAX_ROWS: Final = 40


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


def render(shown: Snapshot, name: str) -> RenderableType:
    """The live table of the lab `name`."""
    table = Table(title=f"Plimsoll lab {name}", title_justify="left", caption_justify="left")
    for heading in ("node", "pods", "pool", "used", "cooling", "free", "marks", "interfaces", "state"):
        table.add_column(heading, justify="left" if heading in ("node", "state") else "right")
    for node, pool in sorted(shown.pools.items(), key=lambda item: _natural(item[0]))[:_MAX_ROWS]:
        free = pool.attached - pool.in_use - pool.cooling
        table.add_row(
            node,
            str(shown.pods.get(node, 0)),
            str(pool.attached),
            str(pool.in_use),
            str(pool.cooling),
            str(free),
            _marks(pool.node.watermarks),
            f"{len(pool.interfaces)}/{pool.interface_limit or '?'}",
            _state(pool),
        )
    if len(shown.pools) > _MAX_ROWS:
        table.caption = f"and {len(shown.pools) - _MAX_ROWS} more"
    total, mutating = shown.calls.get("total", 0), shown.calls.get("mutating", 0)
    line = (
        f"cloud API: {total} calls, {mutating} mutating, {shown.calls.get('throttled', 0)} throttled   "
        f"VPC drops: {shown.drops.spoofed} foreign source, {shown.drops.undelivered} to nobody   "
        f"pings: {shown.pings_sent - shown.pings_lost}/{shown.pings_sent}"
    )
    parts: list[RenderableType] = [table, Text(line)]
    if shown.problem:
        parts.append(Text(shown.problem, style="red"))
    return Group(*parts)


def _marks(marks: ipam_pb2.Watermarks) -> str:
    pre = marks.pre_allocate if marks.HasField("pre_allocate") else 8
    return f"{pre} pre, {marks.min_allocate} min, {marks.max_allocate or '∞'} max"


def _state(pool: ipam_pb2.Pool) -> Text:
    if not pool.connected:
        return Text("not connected", style="red")
    if pool.last_error:
        return Text(pool.last_error, style="red")
    if pool.needed:
        return Text(f"needs {pool.needed}", style="yellow")
    if pool.excess:
        return Text(f"{pool.excess} too many", style="yellow")
    return Text("between its marks", style="green")


def _natural(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)
