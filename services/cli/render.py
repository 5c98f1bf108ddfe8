"""Tables for people, JSON for programs. The only module that writes results to standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Cell = str | int | float | bool | None
Row = Mapping[str, object]

WIDE = 1000  # columns when nobody looks: nothing is cut or wrapped for a pipe

COLOURS = {
    "up": "green", "ready": "green", "ok": "green", "yes": "green",
    "forwarded": "green", "audited": "yellow", "dropped": "red", "deny": "red", "allow": "green", "audit": "yellow",
    "waiting": "yellow", "lost": "yellow", "cooling": "yellow", "marked": "yellow", "releasing": "yellow",
    "down": "red", "refused": "red", "problem": "red",
}  # fmt: skip


@dataclass(slots=True)
class Table:
    """A titled table. Cells are text already, or numbers, which stand right."""

    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    title: str = ""
    empty: str = "none"

    @classmethod
    def of(cls, items: Iterable[Row], columns: Mapping[str, object], *, title: str = "", empty: str) -> Table:
        """One row an item; a column's value is a key of the item, or a function of it."""
        table = cls(tuple(columns), title=title, empty=empty)
        for item in items:
            table.rows.append([plain(pick(item) if callable(pick) else item[str(pick)]) for pick in columns.values()])
        return table

    @classmethod
    def of_pairs(cls, items: Row, *, title: str = "") -> Table:
        """Two columns without heads: what, and its value."""
        return cls((), [(key.replace("_", " "), plain(value)) for key, value in items.items()], title=title)


def show(data: object, as_json: bool, *tables: Table | str) -> None:
    """Prints `data` as JSON, or else the tables and lines that tell it to people."""
    if as_json:
        sys.stdout.write(json.dumps(data, indent=2 if sys.stdout.isatty() else None) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else WIDE)
    for number, table in enumerate(tables):
        if number:
            console.print()
        if isinstance(table, str):
            console.print(table, markup=False, soft_wrap=True)
        else:
            _print(console, table)


def _print(console: Console, table: Table) -> None:
    from rich.table import Table as Rich
    from rich.text import Text

    if table.title:
        console.print(Text(table.title, style="bold"))
    if not table.rows:
        console.print(Text(table.empty, style="dim"))
        return
    rich = Rich(box=None, pad_edge=False, show_header=bool(table.columns), header_style="bold", padding=(0, 2, 0, 0))
    for position in range(len(table.rows[0])):
        numbers = all(isinstance(row[position], int | float) for row in table.rows)
        head = table.columns[position].upper() if table.columns else ""
        rich.add_column(head, justify="right" if numbers and table.columns else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*(_styled(cell) for cell in row))
    console.print(rich)


def _styled(cell: Cell) -> Text:
    from rich.text import Text

    text = str(plain(cell))
    return Text(text, style=COLOURS.get(text, ""))


def plain(value: object) -> Cell:
    """A value of a view as a cell: lists joined, truth as yes or no, nothing as a dash."""
    if value is None or value in ("", [], {}, ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def counted(number: int, noun: str) -> str:
    """ "1 node", "3 nodes", "2 addresses"."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def age(moment: object, *, now_s: float | None = None) -> str:
    """How long ago a moment of a view (RFC 3339 text, or None) was: "5 s", "3 min", "2 h", "4 d"; "in 5 s" ahead."""
    if not isinstance(moment, str) or not moment:
        return "-"
    from datetime import datetime

    seconds = (time.time() if now_s is None else now_s) - datetime.fromisoformat(moment).timestamp()
    return f"in {lasting(-seconds)}" if seconds < 0 else lasting(seconds)


def lasting(seconds: float) -> str:
    """A span of time: "5 s", "3 min", "2 h", "4 d"."""
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def with_remedy(item: Row) -> Cell:
    """A column of messages, each with its remedy below: side by side they would not fit a terminal."""
    return f"{item['message']}\nremedy: {item['remedy']}" if item["remedy"] else str(item["message"])


def aged(key: str) -> Callable[[Row], Cell]:
    """A column that shows how long ago the moment under `key` was."""
    return lambda item: age(item[key])
