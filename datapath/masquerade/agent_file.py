"""The configuration file of Kubernetes' ip-masq-agent, as that program takes it.

YAML or JSON (which is YAML) with up to five keys, all optional; a key that is missing, a file that is empty and a file
that is missing mean the defaults:

    nonMasqueradeCIDRs   ranges that packets go to with the pod's own address; default the three of RFC 1918
    masqLinkLocal        masquerade what goes to 169.254.0.0/16 too; default false
    masqLinkLocalIPv6    masquerade what goes to fe80::/10 too; default false
    resyncInterval       how often the file is read again, in Go's notation ("60s", "1m30s"); default 60 s
    cidrLimit            how many ranges are allowed; default 64

As there, a range with bits set beyond its prefix is refused, and unknown keys do nothing; here they are told of. The
file is read whole at every interval: that sees an edit, a rename and the swapped links of a ConfigMap volume alike. A
file that is wrong, or cannot be read, leaves what was in force; only one that is gone brings the defaults back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

import yaml

from datapath.errors import InvalidSetting

PRIVATE_RANGES: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
LINK_LOCAL: Final = "169.254.0.0/16"
LINK_LOCAL_IPV6: Final = "fe80::/10"
# Shorter intervals are taken, but not kept: reading is cheap, writing maps on each read of a flapping file is not.
SHORTEST_S: Final = 1.0
_LONGEST_BYTES: Final = 1 << 20
_DURATION: Final = re.compile(r"[+]?(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h)")
_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_KEYS: Final = ("nonMasqueradeCIDRs", "masqLinkLocal", "masqLinkLocalIPv6", "resyncInterval", "cidrLimit")


@dataclass(frozen=True, slots=True)
class AgentFile:
    """What a file says. `ignored`: keys that mean nothing."""

    cidrs: tuple[str, ...] = PRIVATE_RANGES
    masquerade_link_local: bool = False
    masquerade_link_local_ipv6: bool = False
    resync_interval_s: float = 60.0
    ignored: tuple[str, ...] = ()

    @property
    def excluded(self) -> tuple[str, ...]:
        """Every range that is not masqueraded towards."""
        return (
            *self.cidrs,
            *(() if self.masquerade_link_local else (LINK_LOCAL,)),
            *(() if self.masquerade_link_local_ipv6 else (LINK_LOCAL_IPV6,)),
        )


DEFAULTS: Final = AgentFile()


def parse(text: str) -> AgentFile:
    """Raises InvalidSetting whose `field` is the key to blame."""
    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidSetting(f"neither YAML nor JSON{where}: {what}", remedy="correct the file") from error
    except (RecursionError, ValueError) as error:  # nested too deep; a date or number that cannot be
        raise InvalidSetting(f"it holds what cannot be: {error}", remedy="correct the file") from error
    if said is None:
        return DEFAULTS
    if not isinstance(said, Mapping):
        raise InvalidSetting(f"its top is {_kind(said)}, not a table of keys", remedy=f"keys are {', '.join(_KEYS)}")
    return AgentFile(
        cidrs=_cidrs(said, _integer(said, "cidrLimit", 64)),
        masquerade_link_local=_boolean(said, "masqLinkLocal"),
        masquerade_link_local_ipv6=_boolean(said, "masqLinkLocalIPv6"),
        resync_interval_s=_interval(said),
        ignored=tuple(sorted(str(key) for key in said if key not in _KEYS)),
    )


def _cidrs(said: Mapping[str, object], limit: int) -> tuple[str, ...]:
    key = "nonMasqueradeCIDRs"
    if key not in said:
        return PRIVATE_RANGES
    given = said[key] if said[key] is not None else []
    if not isinstance(given, list):
        raise InvalidSetting(f"it is {_kind(given)}, not a list", field=key, remedy='for example ["10.0.0.0/8"]')
    if len(given) > limit:
        raise InvalidSetting(
            f"{len(given)} ranges are more than cidrLimit, {limit}", field=key, remedy="join ranges, or raise cidrLimit"
        )
    return tuple(dict.fromkeys(str(_network(text, f"{key}[{n}]")) for n, text in enumerate(given)))


def _network(text: object, field: str) -> IPv4Network | IPv6Network:
    if not isinstance(text, str) or "/" not in text:
        raise InvalidSetting(f"{text!r} is no range", field=field, remedy="write ranges as 10.0.0.0/8 or fd00::/8")
    try:
        return ip_network(text)
    except ValueError as error:
        try:
            wanted = ip_network(text, strict=False)
        except ValueError:
            raise InvalidSetting(f"{text!r} is no range: {error}", field=field) from error
        raise InvalidSetting(
            f"{text!r} has bits set beyond its prefix", field=field, remedy=f"did you mean {wanted}?"
        ) from error


def _boolean(said: Mapping[str, object], key: str) -> bool:
    value = said.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidSetting(f"it is {_kind(value)}, not true or false", field=key)
    return value


def _integer(said: Mapping[str, object], key: str, default: int) -> int:
    value = said.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidSetting(f"it is {_kind(value)}, not a whole number", field=key)
    return value


def _interval(said: Mapping[str, object]) -> float:
    key = "resyncInterval"
    value = said.get(key)
    if value is None:
        return DEFAULTS.resync_interval_s
    if not isinstance(value, str):
        raise InvalidSetting(f"it is {_kind(value)}, not a text", field=key, remedy='write "60s" with its unit')
    parts = _DURATION.findall(value)
    if value != "0" and (not parts or "".join(parts) != value):
        raise InvalidSetting(f"{value!r} is no interval", field=key, remedy='for example "60s" or "1m30s"')
    seconds = 0.0
    for part in parts:
        unit = part.lstrip("+0123456789.")
        seconds += float(part[: -len(unit)]) * _UNITS_S[unit]
    return max(seconds, SHORTEST_S)


def _kind(value: object) -> str:
    return {
        dict: "a table",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Reading:
    """What is in force after a look at the file.

    :ivar file: the rules. :ivar problem: why the file as it is now is not in force; empty if it is.
    :ivar found: there is a file. :ivar changed: the rules are others than before this look.
    """

    file: AgentFile
    problem: str
    found: bool
    changed: bool


class Watched:
    """A file that is looked at again and again. Not thread-safe.

    :param check: refuses, by InvalidSetting, what this node cannot do (such as IPv6 ranges where it is off).
    """

    def __init__(self, path: Path, check: Callable[[AgentFile], None] | None = None) -> None:
        self._path = path
        self._check = check
        self._content: bytes | None = None
        self._problem = ""
        self._looked = False
        self.file = DEFAULTS

    def look(self) -> Reading:
        """Reads it. Blocks for as long as a file takes; raises nothing. Look again after `file.resync_interval_s`."""
        before = self.file if self._looked else None
        found = True
        try:
            content = self._read()
        except FileNotFoundError:
            found = False
            self.file, self._content, self._problem = DEFAULTS, None, ""
        except OSError as error:
            self._content = None
            self._problem = f"{self._path} cannot be read: {error.strerror or error}"
        else:
            if content != self._content:
                self._take(content)
        self._looked = True
        return Reading(self.file, self._problem, found, self.file != before)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(_LONGEST_BYTES + 1)

    def _take(self, content: bytes) -> None:
        self._content, self._problem = content, ""
        try:
            if len(content) > _LONGEST_BYTES:
                raise InvalidSetting(f"it is longer than {_LONGEST_BYTES} bytes")
            taken = parse(content.decode())
            if self._check is not None:
                self._check(taken)
        except UnicodeDecodeError:
            self._problem = f"{self._path}: it is no UTF-8 text; the rules before stay in force"
        except InvalidSetting as error:
            where = f"{error.field}: " if error.field else ""
            advice = f" ({error.remedy})" if error.remedy else ""
            self._problem = f"{self._path}: {where}{error.message}{advice}; the rules before stay in force"
        else:
            self.file = taken
