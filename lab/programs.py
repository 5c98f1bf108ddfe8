"""Every process of a lab: its settings file, its command, and how one sees that it is ready.

Central services listen on a Unix socket in the lab's folder, for the CLI, and on TCP with mutual TLS in the control
namespace, for nodes and workers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lab.clouds import CloudKind, chosen
from lab.options import LabOptions
from lab.processes import Program
from services.runtime import pki

REGISTRY_PORT: Final = 7201
_READY_TIMEOUT_S: Final = 1.0
# Nodes and workers end while those that they report to are still there. The fake cloud is of stage 0.
_STAGES: Final = {"node": 2, "worker": 2}


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node of the lab lives."""

    name: str
    instance_id: str
    namespace: str
    folder: Path
    cloud: CloudKind

    @property
    def socket(self) -> Path:
        return self.folder / "node.sock"

    @property
    def cni_socket(self) -> Path:
        return self.folder / "cni.sock"


class Programs:
    """Makes the programs of one lab.

    :param folder: the lab's folder.
    :param control: namespace of the central services, and `address`, theirs.
    :param pins: a file system for the nodes' eBPF pins.
    :param cluster_cidrs: ranges that know pods' addresses: nothing is masqueraded towards them.
    """

    def __init__(
        self,
        options: LabOptions,
        folder: Path,
        control: str,
        address: str,
        redis_url: str,
        *,
        pins: Path,
        cluster_cidrs: Sequence[str] = (),
    ) -> None:
        self._options = options
        self._folder = folder
        self._control = control
        self._address = address
        self._redis_url = redis_url
        self._pins = pins
        self._cluster_cidrs = cluster_cidrs
        self._certificates = folder / "tls"
        self._issued: dict[tuple[pki.Kind, str], pki.Issued] = {}
        for part in ("config", "db", "nodes"):
            (folder / part).mkdir(mode=0o755, exist_ok=True)
        pki.create_ca(self._certificates)

    @property
    def sockets(self) -> Mapping[str, Path]:
        """Unix sockets of the central services."""
        names = ["registry", *(kind.service for kind in chosen(self._options.cloud))]
        return {name: self._folder / f"{name}.sock" for name in names}

    def fake(self, kind: CloudKind, ready: Any) -> Program:
        more = self._options.fake_ec2 if kind.name == "aws" else ()
        where = ["--listen", f"127.0.0.1:{kind.port}", "--account", kind.account, "--region", kind.region]
        command = [sys.executable, "-m", kind.fake_module, *where, *kind.network_arguments, *more]
        return Program(kind.fake, command, ready, self._control)

    def registry(self) -> Program:
        return self._service(
            "registry",
            "services.registry",
            {
                "listen": f"{self._address}:{REGISTRY_PORT}",
                "socket": str(self.sockets["registry"]),
                "store": f"sqlite:///{self._folder}/db/registry.db",
            },
        )

    def ipam(self, kind: CloudKind) -> Program:
        options = self._options
        return self._service(
            kind.service,
            kind.module,
            {
                "listen": f"{self._address}:{kind.ipam_port}",
                "socket": str(self.sockets[kind.service]),
                "account": kind.account,
                "region": kind.region,
                "store": f"sqlite:///{self._folder}/db/{kind.service}.db",
                "redis": self._redis_url,
                "release_delay_s": options.release_delay_s,
                "resync_interval_s": options.resync_interval_s,
                "coalesce_s": 1.0,
                "sweep_interval_s": 2.0,
                "retry_cap_s": 10.0,
                **kind.service_settings,
                "watermarks": {
                    "pre_allocate": options.pre_allocate,
                    "min_allocate": options.min_allocate,
                    "max_allocate": options.max_allocate,
                    "max_above_watermark": options.max_above_watermark,
                },
            },
        )

    def worker(self, kind: CloudKind) -> Program:
        return self._service(
            kind.worker,
            "services.worker",
            {
                "cloud": kind.name,
                "account": kind.account,
                "region": kind.region,
                "ipam": f"{self._address}:{kind.ipam_port}",
                "redis": self._redis_url,
                "endpoint_url": f"http://127.0.0.1:{kind.port}",
                **kind.worker_settings,
            },
            kind.environment,
            kind="worker",
        )

    def node(self, place: NodePlace, settings: Mapping[str, object] | None = None) -> Program:
        """:param settings: for this node, over those of all nodes."""
        place.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return self._program(
            place.name,
            "node",
            "services.node",
            {
                "name": place.name,
                "instance_id": place.instance_id,
                "instance_type": instance_type(self._options, place.cloud),
                "state_dir": str(place.folder),
                "cni_socket": str(place.cni_socket),
                "socket": str(place.socket),
                "registry": f"{self._address}:{REGISTRY_PORT}",
                "ipam": f"{self._address}:{place.cloud.ipam_port}",
                "cloud": place.cloud.name,
                "cooldown_s": self._options.cooldown_s,
                "tls": self._tls("node", place.name),
                "datapath": {
                    "mode": self._options.datapath,
                    "bpf_dir": str(self._pins / place.name),
                    "masquerade": self._options.masquerade,
                    "cluster_cidrs": list(self._cluster_cidrs),
                },
            },
            namespace=place.namespace,
            socket=place.socket,
            more=settings or {},
        )

    def _service(
        self,
        name: str,
        module: str,
        settings: dict[str, Any],
        environment: Mapping[str, str] | None = None,
        *,
        kind: str = "",
    ) -> Program:
        settings["tls"] = self._tls("service", kind or name)
        return self._program(
            name,
            kind or name,
            module,
            settings,
            namespace=self._control,
            socket=Path(settings["socket"]) if "socket" in settings else None,
            environment=environment or {},
        )

    def _program(
        self,
        name: str,
        kind: str,
        module: str,
        settings: dict[str, Any],
        *,
        namespace: str,
        socket: Path | None,
        environment: Mapping[str, str] | None = None,
        more: Mapping[str, object] = MappingProxyType({}),
    ) -> Program:
        metrics = self._folder / f"{name}.metrics.sock"
        settings = {
            "log_level": self._options.log_level,
            "log_format": "console",
            "metrics_listen": f"unix:{metrics}",
            **settings,
        }
        _merge(settings, self._options.settings.get(kind, {}))
        _merge(settings, more)
        config = self._folder / "config" / f"{name}.toml"
        config.write_text(toml(settings))

        async def ready() -> bool:
            return await serving(socket) if socket is not None else await healthy(metrics)

        command = [sys.executable, "-m", module, "--config", str(config)]
        return Program(name, command, ready, namespace, environment or {}, _STAGES.get(kind, 1))

    def _tls(self, kind: pki.Kind, name: str) -> dict[str, str]:
        issued = self._issued.get((kind, name))
        if issued is None:  # once: another process of that name may be reading it
            issued = self._issued[kind, name] = pki.issue(self._certificates, self._certificates, kind, name)
        return {"ca": str(issued.ca), "certificate": str(issued.certificate), "key": str(issued.key)}


def instance_type(options: LabOptions, kind: CloudKind) -> str:
    return options.instance_type or kind.instance_type


async def serving(socket: Path) -> bool:
    """True if the gRPC server at the Unix socket says that it serves."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_READY_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def healthy(socket: Path) -> bool:
    """True if the metrics endpoint at the Unix socket answers 200 to /healthz."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML: plain values first, then one table for each mapping."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    for key, table in settings.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{json.dumps(name)} = {_toml_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """JSON is TOML too, but for tables within lists and tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)


def _merge(settings: dict[str, Any], more: Mapping[str, object]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), Mapping):
            settings[key] = {**settings[key], **value}
        else:
            settings[key] = value
