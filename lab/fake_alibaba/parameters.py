"""Parameters of a call: Tag.1.Key=a becomes {"Tag": [{"Key": "a"}]}, and what a call wants of them, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lab.fake_alibaba.errors import ApiError, invalid, missing

_LONGEST_TOKEN: Final = 64
# What the SDK adds to each call.
_COMMON: Final = frozenset({
    "Action", "Format", "Version", "Timestamp", "SignatureNonce", "SignatureMethod", "SignatureVersion", "Signature",
    "AccessKeyId", "SecurityToken", "SignatureType",
})  # fmt: skip


def unflatten(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Raises ApiError for a name that says two things."""
    tree: dict[str, Any] = {}
    for name, value in fields:
        if name in _COMMON:
            continue
        at, (*path, last) = tree, name.split(".")
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise invalid(name, value)
        at[last] = value
    token = tree.get("ClientToken", "")
    if not isinstance(token, str) or len(token) > _LONGEST_TOKEN or not token.isascii():
        raise ApiError("InvalidClientToken.Malformed", "The ClientToken has at most 64 characters of ASCII.")
    return {name: _lists(value) for name, value in tree.items()}


def _lists(value: Any) -> Any:
    """A table whose keys are numbers is a list, in the order of the numbers."""
    if not isinstance(value, dict):
        return value
    if all(key.isdecimal() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(each) for key, each in value.items()}


def text(parameters: Mapping[str, Any], name: str) -> str:
    """A parameter that must be there."""
    value = parameters.get(name)
    if not value:
        raise missing(name)
    if not isinstance(value, str):
        raise invalid(name, value)
    return value


def number(parameters: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = parameters.get(name)
    if value in (None, ""):
        return default
    if not str(value).isdecimal() or not least <= int(value) <= most:
        raise invalid(name, value, f"It must be between {least} and {most}.")
    return int(value)


def flag(parameters: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = str(parameters.get(name, default)).lower()
    if value not in ("true", "false"):
        raise invalid(name, value, "It must be true or false.")
    return value == "true"


def texts(parameters: Mapping[str, Any], name: str, most: int = 100) -> list[str]:
    """A repeated parameter, without those that are said twice."""
    value = parameters.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise invalid(name, value, "It must be a list.")
    if len(value) > most:
        raise invalid(name, f"{len(value)} values", f"It takes {most} at most.")
    return list(dict.fromkeys(value))


def json_texts(parameters: Mapping[str, Any], name: str, most: int = 100) -> list[str]:
    """A list that is written as JSON, as DescribeInstances wants ids."""
    written = parameters.get(name)
    if not written:
        return []
    try:
        value = json.loads(written)
    except ValueError:
        raise invalid(name, written, "It must be a JSON array.") from None
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, str) for each in value):
        raise invalid(name, written, f"It must be a JSON array of {most} ids at most.")
    return list(dict.fromkeys(value))


def tags(parameters: Mapping[str, Any]) -> dict[str, str]:
    rows = parameters.get("Tag") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise invalid("Tag", rows)
    if len(rows) > 20:
        raise ApiError("NumberExceed.Tags", "The Tags parameter's number is exceed.")
    found = {str(row.get("Key") or ""): str(row.get("Value") or "") for row in rows}
    for key, value in found.items():
        if not 1 <= len(key) <= 128 or key.startswith(("aliyun", "acs:", "http://", "https://")):
            raise ApiError("InvalidTagKey.Malformed", f"The tag key {key!r} is invalid.")
        if len(value) > 128:
            raise ApiError("InvalidTagValue.Malformed", "A tag's value has at most 128 characters.")
    if len(found) < len(rows):
        raise ApiError("Duplicate.TagKey", "The Tag.N.Key contain duplicate key.")
    return found
