"""Where the services are: the context file.

    registry = "unix:/run/plimsoll/registry.sock"      # or "registry.example.net:7401"

    [ipam]                                             # one line for each IPAM service
    ipam-aws = "unix:/run/plimsoll/ipam-aws.sock"
    ipam-aws-2 = { target = "10.0.0.5:7402", identity = "ipam-aws" }

    [nodes]                                            # sockets of node daemons on this machine
    node-1 = "unix:/run/plimsoll/node.sock"

    [tls]                                              # for targets that are not Unix sockets
    ca = "ca.pem"                                      # relative to this file
    certificate = "cli.pem"
    key = "cli.key"

Sockets may be plain absolute paths. A service's identity is the name in its certificate; it is the line's own name if
that is not said.
"""

from __future__ import annotations

import fcntl
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from services.cli import invocation
from services.cli.errors import Refused, Unknown, Usage

LABS = Path("/run/plimsoll-lab")
SYSTEM = Path("/etc/plimsoll/context.toml")
VARIABLE = "PLIMSOLL_CONTEXT"

Kind = Literal["registry", "ipam", "node"]


@dataclass(frozen=True, slots=True)
class Tls:
    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Service:
    """One service to ask. `target` is "unix:/path" or "host:port"; `identity` the name in its certificate."""

    name: str
    kind: Kind
    target: str
    identity: str
    tls: Tls | None = None


@dataclass(frozen=True, slots=True)
class Context:
    path: Path
    registry: Service | None = None
    ipam: Mapping[str, Service] = field(default_factory=dict)
    nodes: Mapping[str, Service] = field(default_factory=dict)

    def services(self) -> list[Service]:
        return [*([self.registry] if self.registry else []), *self.ipam.values(), *self.nodes.values()]

    def need_registry(self) -> Service:
        if self.registry is None:
            raise Usage(
                f"{self.path} names no registry",
                field="registry",
                remedy='add a line registry = "unix:/path or host:port"',
            )
        return self.registry

    def need_ipam(self, name: str | None = None) -> list[Service]:
        """All IPAM services, or the one of that name."""
        if not self.ipam:
            raise Usage(
                f"{self.path} names no IPAM service",
                field="ipam",
                remedy='add a table [ipam] with a line ipam-aws = "unix:/path or host:port"',
            )
        if name is None:
            return list(self.ipam.values())
        if name not in self.ipam:
            raise Unknown(f"{self.path} names no IPAM service {name}", remedy=f"choose one of: {', '.join(self.ipam)}")
        return [self.ipam[name]]


def current(given: Path | None) -> Context:
    """The context of this command; `given` is its own --context, which wins over the one before the command."""
    return load(find(given or invocation.this.context))


def find(given: Path | None, *, home: Path | None = None, system: Path = SYSTEM, labs: Path = LABS) -> Path:
    """The context file to use: `given`, $PLIMSOLL_CONTEXT, the user's, the system's, a running lab's."""
    if given is None and (named := os.environ.get(VARIABLE)):
        given = Path(named)
    if given is not None:
        if not given.is_file():
            raise Unknown(f"there is no context file {given}", remedy="name another with --context FILE")
        return given
    user = (home or Path.home()) / ".config" / "plimsoll" / "context.toml"
    for path in (user, system):
        if path.is_file():
            return path
    running = sorted(path for path in labs.glob("*/context.toml") if _lives(path.parent))
    if len(running) == 1:
        return running[0]
    if running:
        raise Usage(
            "several labs run on this machine", remedy=f"choose one: --context {' or '.join(map(str, running))}"
        )
    raise Unknown(
        "there is no context file, and no lab runs on this machine",
        remedy=f"start a lab (make lab), or write {user}, or name a file with --context FILE or ${VARIABLE}",
    )


def _lives(lab: Path) -> bool:
    """A lab holds a lock on its folder as long as it runs; one that was killed leaves the folder behind."""
    try:
        with (lab / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def load(path: Path) -> Context:
    """Reads and checks a context file. Raises Usage that names the file and the wrong key, or Refused if it may not be
    read."""
    try:
        data = tomllib.loads(path.read_text())
    except PermissionError as error:
        raise Refused(f"{path} may not be read", remedy="run as root, or as the user who started the lab") from error
    except FileNotFoundError as error:
        raise Unknown(f"there is no context file {path}", remedy="name another with --context FILE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage(f"{path} is not TOML: {error}", remedy="correct the file at the place named") from error
    return _Reader(path, data).read()


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    data: Mapping[str, Any]

    def read(self) -> Context:
        known = {"registry", "ipam", "nodes", "tls"}
        if unknown := sorted(set(self.data) - known):
            raise self._wrong(unknown[0], "is not a key of a context file", f"the keys are {', '.join(sorted(known))}")
        tls = self._tls()
        registry = self.data.get("registry")
        return Context(
            self.path,
            self._service("registry", "registry", "registry", registry, tls) if registry is not None else None,
            {name: self._service(f"ipam.{name}", name, "ipam", value, tls) for name, value in self._table("ipam")},
            {name: self._service(f"nodes.{name}", name, "node", value, tls) for name, value in self._table("nodes")},
        )

    def _tls(self) -> Tls | None:
        table = dict(self._table("tls"))
        if not table:
            return None
        for key in ("ca", "certificate", "key"):
            if not isinstance(table.get(key), str):
                raise self._wrong(f"tls.{key}", "must be the path of a PEM file", "see `plimsoll pki issue`")
        return Tls(*(self.path.parent / table[key] for key in ("ca", "certificate", "key")))

    def _table(self, key: str) -> list[tuple[str, Any]]:
        table = self.data.get(key, {})
        if not isinstance(table, dict):
            raise self._wrong(key, "must be a table", f"write [{key}] on a line of its own, and name = value below it")
        return list(table.items())

    def _service(self, key: str, name: str, kind: Kind, value: Any, tls: Tls | None) -> Service:
        identity = name
        if isinstance(value, dict):
            identity, value = value.get("identity", name), value.get("target")
        how = 'write "unix:/path/of.sock" or "host:port"'
        if not isinstance(value, str) or not isinstance(identity, str):
            raise self._wrong(key, "must be a target", how)
        if value.startswith("/"):
            value = f"unix:{value}"
        if value.startswith("unix:"):
            return Service(name, kind, value, identity)
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise self._wrong(key, f"is no target: {value!r}", how)
        return Service(name, kind, value, identity, tls)

    def _wrong(self, key: str, what: str, remedy: str) -> Usage:
        return Usage(f"{self.path}: {key} {what}", field=key, remedy=remedy)
