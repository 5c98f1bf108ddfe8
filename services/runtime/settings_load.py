"""Reads settings from file, environment and flags, and explains what is wrong with them."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliSettingsSource, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError as SourceError

from services.runtime.errors import RuntimeFault
from services.runtime.masking import holds_secret, without_secrets
from services.runtime.settings_text import config_text, explain, fields_of, help_text, is_secret, variable

S = TypeVar("S", bound=BaseSettings)

# What Kubernetes and Docker put into every container for a Service named like ours; not meant for us.
_SERVICE_LINKS: Final = re.compile(r"(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)", re.I)


class SettingsError(RuntimeFault):
    """Settings that can't be; the text has a line per field: its name, its value, what is accepted, what to do."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("invalid", "\n".join(lines))


class HelpShown(Exception):
    """Not an error: `--help` or `--print-config` was asked for; the text is the argument."""


def load(cls: type[S], argv: Sequence[str], *, name: str = "", environ: Mapping[str, str] | None = None) -> S:
    """Settings of `cls` from `--config FILE`, the environment and flags. Raises SettingsError or HelpShown.

    :param name: the program's name for the help text.
    :param environ: None: the process's own.
    """
    env = dict(os.environ if environ is None else environ)
    flags, asked = _read_flags(cls, argv, name)
    config: Path | None = asked.config
    _refuse_secrets(cls, flags)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in (
        (f"file {config}", _read_file(config) if config else {}),
        ("environment", _read_environment(cls, env)),
        ("flags", flags),
    ):
        _merge(merged, values, origin, origins)
    try:
        settings = cls(**merged)
    except ValidationError as exc:
        raise SettingsError([explain(cls, error, origins) for error in exc.errors()]) from None
    if asked.print_config:
        raise HelpShown(config_text(settings, origins))
    return settings


def _refuse_secrets(cls: type[BaseSettings], flags: Mapping[str, Any], at: str = "") -> None:
    """Raises SettingsError for a secret on the command line, where every user of the machine can read it."""
    fields = dict(fields_of(cls))
    for key, value in flags.items():
        name = f"{at}{key}"
        if isinstance(value, Mapping):
            _refuse_secrets(cls, value, f"{name}.")
        elif is_secret(fields.get(name)) or (isinstance(value, str) and holds_secret(value)):
            raise SettingsError(
                [
                    f"{name}: holds a secret, and a flag is seen by every user of this machine; "
                    f"set {variable(cls, name)} or {name} in the file"
                ]
            )


class _Environment(EnvSettingsSource):
    """Lists and tables may be written as JSON, or as a,b and a=1,b=2 as on the command line."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return _decode_list(field.annotation, value)


def _decode_list(annotation: Any, value: str) -> Any:
    origins = {get_origin(part) or part for part in (annotation, *get_args(annotation))}
    items = [item.strip() for item in value.split(",") if item.strip()]
    if origins & {dict, Mapping}:
        pairs = [item.partition("=") for item in items]
        return {key: item for key, _, item in pairs} if all(equals for _, equals, _ in pairs) else value
    if origins & {list, tuple, set, frozenset, Sequence}:
        return items
    return value


def _read_environment(cls: type[BaseSettings], env: Mapping[str, str]) -> dict[str, Any]:
    prefix = cls.model_config.get("env_prefix", "").lower()
    lowered = {key.lower(): value for key, value in env.items()}
    source = _Environment(cls)
    source.env_vars = {key: value for key, value in lowered.items() if key.startswith(prefix)}
    known = set(cls.model_fields)
    unknown = []
    for key in source.env_vars:
        first = key.removeprefix(prefix).split("__")[0]
        if first not in known and not _SERVICE_LINKS.fullmatch(key.removeprefix(prefix)):
            unknown.append(f"{key.upper()}: no such setting{_similar(first, known, prefix)}; unset it")
    if unknown:
        raise SettingsError(unknown)
    try:
        return dict(source())
    except SourceError as exc:
        raise SettingsError(
            [f"environment {prefix.upper()}*: {exc}; write lists as a,b and tables as a=1,b=2"]
        ) from exc


def _similar(name: str, known: set[str], prefix: str) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {(prefix + close[0]).upper()}?)" if close else ""


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(
            [f"config: {str(path)!r} can't be read: {exc.strerror}; give the path of a TOML file"]
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError([f"config: {str(path)!r} is not TOML: {exc}; correct the file"]) from exc


def _read_flags(cls: type[BaseSettings], argv: Sequence[str], name: str) -> tuple[dict[str, Any], argparse.Namespace]:
    pre = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    pre.add_argument("--config", type=Path)
    pre.add_argument("--print-config", action="store_true")
    errors = io.StringIO()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(printed):
            known, rest = pre.parse_known_args(list(argv))
            source: CliSettingsSource[Any] = CliSettingsSource(
                cls,
                cli_prog_name=name or None,
                cli_parse_args=list(rest),
                cli_kebab_case=True,
                cli_implicit_flags=True,
                cli_hide_none_type=True,
                cli_avoid_json=True,
                cli_exit_on_error=True,
            )
            return dict(source()), known
    except SystemExit as exc:
        if not exc.code:
            raise HelpShown(help_text(cls, name)) from None
        text = errors.getvalue().strip().splitlines()
        said = without_secrets((text or ["not understood"])[-1].strip())
        raise SettingsError([f"flags: {said}; see --help"]) from None
    except (SourceError, argparse.ArgumentError) as exc:
        raise SettingsError([f"flags: {without_secrets(str(exc))}; see --help"]) from None


def _merge(into: dict[str, Any], values: Mapping[str, Any], origin: str, origins: dict[str, str], at: str = "") -> None:
    for key, value in values.items():
        dotted = f"{at}{key}"
        origins[dotted] = origin
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value, origin, origins, f"{dotted}.")
        elif isinstance(value, Mapping):
            into[key] = {}
            _merge(into[key], value, origin, origins, f"{dotted}.")
        else:
            into[key] = value
