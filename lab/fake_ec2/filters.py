"""Filters of the Describe calls: values are alternatives, filters must all hold, * and ? are wildcards."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lab.fake_ec2.errors import ApiError, missing
from lab.fake_ec2.records import Tags

R = TypeVar("R")
Facts = Mapping[str, Callable[[Any], str | Iterable[str]]]
_MAX_VALUES = 200


def keep(records: Iterable[R], wanted: Sequence[Mapping[str, Any]] | None, facts: Facts) -> Iterable[R]:
    """Records for which every filter holds.

    :param facts: by filter name, what a record says of it; "tag:<key>" and "tag-key" come with "tags".
    """
    for each in wanted or ():
        records = filter(_predicate(each, facts), records)
    return records


def exactly(wanted: Sequence[Mapping[str, Any]] | None, name: str) -> list[str] | None:
    """The values of filter `name` if it is asked for without wildcards, so that an index may be used."""
    for each in wanted or ():
        values = each.get("Values") or []
        if each.get("Name") == name and not any(set(value) & set("*?\\") for value in values):
            return list(values)
    return None


def _predicate(wanted: Mapping[str, Any], facts: Facts) -> Callable[[Any], bool]:
    name = wanted.get("Name")
    if not name:
        raise missing("Filter.Name")
    values = wanted.get("Values") or []
    if not values:
        raise ApiError("InvalidParameterValue", f"The filter '{name}' needs at least one value")
    if len(values) > _MAX_VALUES:
        raise ApiError("FilterLimitExceeded", f"The maximum number of filter values is {_MAX_VALUES}")
    matches = _matcher(tuple(values))
    fact = _fact(name, facts)

    def holds(record: Any) -> bool:
        said = fact(record)
        return matches(said) if isinstance(said, str) else any(map(matches, said))

    return holds


def _fact(name: str, facts: Facts) -> Callable[[Any], str | Iterable[str]]:
    if "tags" in facts:
        tags: Callable[[Any], Tags] = facts["tags"]  # type: ignore[assignment]
        if name == "tag-key":
            return lambda record: tags(record).keys()
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            return lambda record: [value] if (value := tags(record).get(key)) is not None else []
    if name == "tags" or name not in facts:
        raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
    return facts[name]


@functools.lru_cache(256)
def _matcher(values: tuple[str, ...]) -> Callable[[str], bool]:
    if not any(set(value) & set("*?\\") for value in values):
        return frozenset(values).__contains__
    pattern = re.compile("|".join(map(_pattern, values)), re.DOTALL)
    return lambda text: pattern.fullmatch(text) is not None


def _pattern(value: str) -> str:
    wild = {"*": ".*", "?": "."}
    parts = re.findall(r"\\.|.", value, re.DOTALL)
    return "".join(wild.get(part) or re.escape(part[1] if len(part) == 2 else part) for part in parts)
