"""What people read about settings: the help, and one line for each field that is wrong."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings

from services.runtime.masking import without_secrets

_KIND_NAMES: Final[Mapping[Any, str]] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}


def fields_of(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf setting with its dotted name."""
    for key, field in cls.model_fields.items():
        nested = [part for part in (field.annotation, *get_args(field.annotation)) if _is_model(part)]
        if nested:
            yield from fields_of(nested[0], f"{prefix}{key}.")
        else:
            yield prefix + key, field


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def help_text(cls: type[BaseSettings], name: str) -> str:
    prefix = cls.model_config.get("env_prefix", "").upper()
    lines = [f"usage: {name or cls.__name__} [--config FILE] [--print-config] [--SETTING VALUE ...]", ""]
    lines += [f"Settings: a TOML file (--config), then {prefix}* variables, then flags; what comes later wins.", ""]
    for dotted, field in fields_of(cls):
        lines.append(f"  --{_flag(dotted)} {accepted(field)}")
        lines.append(f"        {field.description or ''}".rstrip())
        default = (
            "" if field.is_required() else f"default: {shown(field, field.get_default(call_default_factory=True))}; "
        )
        lines.append(f"        {default}{variable(cls, dotted)}")
    return "\n".join(lines)


def config_text(settings: BaseSettings, origins: Mapping[str, str]) -> str:
    """The settings in force as TOML, without secrets; a comment tells where each came from."""
    lines = []
    for dotted, field in fields_of(type(settings)):
        value: Any = settings
        for part in dotted.split("."):
            value = getattr(value, part, None)
        if value is None:
            continue
        origin = origins.get(dotted, "default")
        lines.append(f"{dotted} = {_toml(field, value)}  # {origin}")
    return "\n".join(lines)


def _toml(field: FieldInfo, value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(field, item)}" for key, item in value.items()) + "}"
    if is_secret(field):
        return '"(secret)"'
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(_toml(field, item) for item in value) + "]"
    return shown(field, value if isinstance(value, str | bool | int | float) else str(value))


def is_secret(field: FieldInfo | None) -> bool:
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


def _flag(dotted: str) -> str:
    return dotted.replace("_", "-")


def variable(cls: type[BaseSettings], dotted: str) -> str:
    return (cls.model_config.get("env_prefix", "") + dotted.replace(".", "__")).upper()


def accepted(field: FieldInfo) -> str:
    """What a field takes, in a few characters."""
    literals = [value for part in (field.annotation, *get_args(field.annotation)) for value in _literal(part)]
    if literals:
        return "{" + ",".join(literals) + "}"
    kind = _kind_name(field.annotation)
    low, high = _bound(field, ge="", gt="more than "), _bound(field, le="", lt="less than ")
    if low and high:
        return f"{kind} of {low} to {high}"
    if low:
        return f"{kind} of {low}" if low.startswith("more") else f"{kind} of {low} or more"
    if high:
        return f"{kind} of {high}" if high.startswith("less") else f"{kind} of at most {high}"
    return kind


def _bound(field: FieldInfo, **words: str) -> str:
    for item in field.metadata:
        for attribute, word in words.items():
            if getattr(item, attribute, None) is not None:
                return f"{word}{getattr(item, attribute)}"
    return ""


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _literal(part: Any) -> tuple[str, ...]:
    return tuple(map(str, get_args(part))) if get_origin(part) is Literal else ()


def _kind_name(annotation: Any) -> str:
    parts = [part for part in get_args(annotation) if part is not type(None)] if get_args(annotation) else []
    origin = get_origin(annotation)
    if origin in (list, tuple, set, frozenset, Sequence):
        return "a,b,..."
    if origin in (dict, Mapping):
        return "key=value,..."
    if parts:
        return _kind_name(parts[0])
    names = {
        int: "whole number",
        float: "number",
        bool: "true or false",
        str: "text",
        Path: "path",
        SecretStr: "secret",
    }
    return names.get(annotation, getattr(annotation, "__name__", "value"))


def explain(cls: type[BaseSettings], error: ErrorDetails, origins: Mapping[str, str]) -> str:
    """One line: field, value, what is accepted, what to do."""
    fields = dict(fields_of(cls))
    location = ".".join(str(part) for part in error["loc"])
    path = [str(part) for part in error["loc"]]
    while path and ".".join(path) not in fields and len(path) > 1:
        path.pop()
    name = ".".join(path)
    field = fields.get(name)
    origin = next((origins[at] for at in (location, name, location.split(".")[0]) if at in origins), "")
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location, list(fields), 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{location}: no such setting{hint}; remove it from the {origin or 'settings'}"
    how = f"set --{_flag(name)} or {variable(cls, name)}, or {name} in the file"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] == "missing":
        takes = accepted(field) if field is not None else "a value"
        return f"{location}: not set; accepted: {takes}; {how}"
    if not location:
        # The validator of a whole model names its field itself.
        return f"{message}; see --help"
    remedy = (
        (field.json_schema_extra or {}).get("remedy")
        if field is not None and isinstance(field.json_schema_extra, dict)
        else None
    )
    takes = f"; accepted: {accepted(field)}" if field is not None else ""
    source = f" from the {origin}" if origin else ""
    return f"{location}: {shown(field, error['input'])}{source} is not accepted: {message}{takes}; {remedy or how}"


def shown(field: FieldInfo | None, value: Any) -> str:
    """A value for people, without secrets: those of secret fields, and passwords inside URLs."""
    if is_secret(field):
        return "(secret)"
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return json.dumps(without_secrets(value))
    try:
        text = json.dumps(value)
    except TypeError:
        text = repr(value)
    return without_secrets(text)
