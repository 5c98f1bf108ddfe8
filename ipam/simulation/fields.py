"""Tables of a TOML file, field by field. Every error is an InvalidInput with the field's full name and a remedy."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ipam.errors import InvalidInput

LARGEST_FILE = 64 << 20


def read_text(path: Path) -> str:
    """Raises InvalidInput for what cannot be read, or is too large to be meant."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InvalidInput(f"{path} is larger than {LARGEST_FILE >> 20} MB", remedy="name a smaller file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InvalidInput(f"{path} cannot be read: {reason}", remedy="name a file that can be read") from error


def read_toml(text: str, name: str) -> dict[str, Any]:
    """Raises InvalidInput with the line to blame."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{name} is no TOML: {error}", remedy="correct the line that is named") from error


class Fields:
    """One table. Each reader takes a field out; `end` refuses what nobody took.

    :param where: the table's own name, such as "group.web"; empty: the file's top.
    """

    def __init__(self, table: object, where: str = "") -> None:
        if not isinstance(table, Mapping):
            raise InvalidInput(f"{where} is no table", field=where, remedy=f"write [{where}] with its fields below")
        self._left = dict(table)
        self._where = where
        self._asked: list[str] = []

    def name_of(self, field: str) -> str:
        return f"{self._where}.{field}" if self._where else field

    def fail(self, field: str, message: str, remedy: str) -> InvalidInput:
        name = self.name_of(field)
        return InvalidInput(f"{name} {message}", field=name, remedy=remedy)

    def has(self, field: str) -> bool:
        self._asked.append(field)
        return field in self._left

    def _take(self, field: str, default: object) -> object:
        self._asked.append(field)
        return self._left.pop(field, default)

    def text(self, field: str, default: str | None = None, *, choices: Iterable[str] = ()) -> str:
        value = self._take(field, default)
        known = sorted(choices)
        if value is None:
            raise self.fail(field, "is missing", f"add {field} = {known[0] if known else '...'!r}")
        if not isinstance(value, str) or not value:
            raise self.fail(field, "is no text", f'write {field} = "..."')
        if known and value not in known:
            raise self.fail(field, f"is {value!r}", f"use one of {', '.join(known)}")
        return value

    def number(self, field: str, default: float | None, *, least: float = 0.0, most: float = 1e9) -> float:
        """Raises InvalidInput for what is no number between the two; one without default must be there."""
        value = self._take(field, default)
        if value is None:
            raise self.fail(field, "is missing", f"add {field} = a number from {least:g} to {most:g}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(field, f"is {value!r}, which is no number", f"write a number from {least:g} to {most:g}")
        if not least <= value <= most:
            raise self.fail(field, f"is {value:g}", f"write a number from {least:g} to {most:g}")
        return float(value)

    def whole(self, field: str, default: int | None, *, least: int = 0, most: int = 1_000_000) -> int:
        value = self.number(field, default, least=least, most=most)
        if value != int(value):
            raise self.fail(field, f"is {value:g}", "write a whole number")
        return int(value)

    def flag(self, field: str, default: bool) -> bool:
        value = self._take(field, default)
        if not isinstance(value, bool):
            raise self.fail(field, f"is {value!r}", "write true or false")
        return value

    def texts(self, field: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self._take(field, list(default))
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self.fail(field, "is no list of texts", f'write {field} = ["...", "..."]')
        return tuple(value)

    def numbers(self, field: str) -> tuple[float, ...]:
        value = self._take(field, [])
        good = isinstance(value, list) and all(
            isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in value
        )
        if not good or not isinstance(value, list):
            raise self.fail(field, "is no list of numbers", f"write {field} = [1, 2, ...]")
        return tuple(float(each) for each in value)

    def labels(self, field: str) -> dict[str, str]:
        """Names with texts; none if it is not there."""
        value = self._take(field, {})
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
            raise self.fail(field, "is no table of texts", f'write {field} = {{ name = "..." }}')
        return dict(value)

    def table(self, field: str) -> Fields:
        """An empty one if it is not there."""
        return Fields(self._take(field, {}), self.name_of(field))

    def tables(self, field: str) -> list[Fields]:
        """Of [[field]]; each is called by its `name` or `id`, or by its number."""
        value = self._take(field, [])
        if not isinstance(value, list):
            raise self.fail(field, "is no list of tables", f"write [[{self.name_of(field)}]] above each")
        found = []
        for number, each in enumerate(value, 1):
            own = each.get("name") or each.get("id") if isinstance(each, Mapping) else None
            found.append(Fields(each, f"{self.name_of(field)}.{own if isinstance(own, str) else number}"))
        return found

    def drop(self, fields: Iterable[str]) -> None:
        """Passes over what may be there, and is of no importance here."""
        for each in fields:
            self._left.pop(each, None)

    def end(self) -> None:
        """Raises InvalidInput for a field that is not known here."""
        for field in self._left:
            near = difflib.get_close_matches(field, self._asked, 1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(sorted(set(self._asked)))}"
            raise self.fail(field, "is not known", remedy)
