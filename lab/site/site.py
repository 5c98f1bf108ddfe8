"""A site of real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lab.clouds import CLOUDS, CloudName
from lab.site.fake import Fake
from lab.site.node import NodeClient
from lab.site.processes import Process, free_port, http_ok
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.runtime import pki
from services.runtime.client import aio_channel
from services.runtime.redis import RedisServer
from services.runtime.settings import TlsSettings

# What workers of a site on AWS get in their environment.
AWS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_CERTIFIERS: Final = 32


class Site:
    """:param cloud: whose account it is.
    :param store: URL of the IPAM service's database; None: SQLite in `folder`.
    :param ipam, worker: settings over the site's own.
    :param ec2: more arguments of the fake cloud.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cloud: CloudName = "aws",
        store: str | None = None,
        ipam: Mapping[str, Any] | None = None,
        worker: Mapping[str, Any] | None = None,
        ec2: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.kind = CLOUDS[cloud]
        self.ec2 = Fake(self.kind, f"127.0.0.1:{free_port()}", folder / f"{self.kind.fake}.log", ec2)
        self.ipam_target = f"127.0.0.1:{free_port()}"
        self.workers: dict[str, Process] = {}
        self._store = store or f"sqlite:///{folder}/{self.kind.service}.db"
        self._ipam_settings = dict(ipam or {})
        self._worker_settings = dict(worker or {})
        self._ipam = self._service(self.kind.service, self.kind.module, {})
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            pki.create_ca(self.folder / "ca")
            await stack.enter_async_context(self.redis)
            stack.push_async_callback(self.stop_all)
            async with asyncio.TaskGroup() as starting:
                starting.create_task(stack.enter_async_context(self.ec2))
                starting.create_task(self.start_ipam())
                starting.create_task(self.start_worker("worker"))
            local = await stack.enter_async_context(aio_channel(f"unix:{self._socket}", None))
            self.local = pb_grpc.IpamServiceStub(local)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def stop_all(self) -> None:
        async with asyncio.TaskGroup() as stopping:
            for process in (*self.workers.values(), self._ipam):
                stopping.create_task(process.end())

    async def start_ipam(self, **settings: Any) -> None:
        """Starts the IPAM service, anew with `settings` over those it had."""
        self._ipam_settings |= settings
        own = {
            "listen": self.ipam_target,
            "socket": str(self._socket),
            "account": self.kind.account,
            "region": self.kind.region,
            "store": self._store,
            "redis": self.redis.url,
            "metrics_listen": f"unix:{self.folder}/ipam.metrics",
            "coalesce_s": 0.1,
            "release_delay_s": 0.2,
            "sweep_interval_s": 0.5,
            "lease_s": 3.0,
            "retry_base_s": 0.2,
            "retry_cap_s": 2.0,
            "tls": self._tls("service", self.kind.service),
        }
        self._ipam = self._service(self.kind.service, self.kind.module, {**own, **self._ipam_settings})
        await self._ipam.start(self._ipam_serves)

    async def kill_ipam(self) -> None:
        await self._ipam.kill()

    async def stop_ipam(self) -> int:
        return await self._ipam.end()

    async def start_worker(self, name: str, **settings: Any) -> None:
        metrics = self.folder / f"{name}.metrics"
        own = {
            "cloud": self.kind.name,
            "account": self.kind.account,
            "region": self.kind.region,
            "ipam": self.ipam_target,
            "redis": self.redis.url,
            "endpoint_url": self.ec2.url,
            "threads": 8,
            "metrics_listen": f"unix:{metrics}",
            "budget": {"mutate_per_s": 200, "read_per_s": 200, "total_per_s": 400},
            "tls": self._tls("service", "worker"),
        }
        environment = AWS if self.kind.name == "aws" else self.kind.environment
        process = self._service(name, "services.worker", {**own, **self._worker_settings, **settings}, environment)
        self.workers[name] = process
        await process.start(lambda: http_ok("http://worker/healthz", metrics))

    @property
    def pids(self) -> dict[str, int]:
        """Every process of the site by its name."""
        ran = {self.kind.service: self._ipam, **self.workers, self.kind.fake: self.ec2.process}
        return {"redis": self.redis.pid, **{name: process.pid for name, process in ran.items()}}

    async def metrics(self, name: str = "ipam") -> str:
        """The Prometheus text of "ipam" or of a worker."""
        connector = aiohttp.UnixConnector(str(self.folder / f"{name}.metrics"))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://it/metrics") as answer:
            return await answer.text()

    def node(self, name: str, instance_id: str, **spec: Any) -> NodeClient:
        return NodeClient(name, instance_id, self.channel("node", name), spec)

    async def certify(self, nodes: Sequence[str]) -> None:
        """Issues the certificates of many nodes before they are asked for: each is a few writes to the disk."""
        with ThreadPoolExecutor(_CERTIFIERS) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, self._tls, "node", each) for each in nodes))

    def channel(self, kind: pki.Kind, name: str) -> grpc.aio.Channel:
        """A channel to the IPAM service in the name of a node or service."""
        return aio_channel(self.ipam_target, TlsSettings(**self._tls(kind, name)), f"service/{self.kind.service}")

    async def explain(self, node: str) -> str:
        """All findings in one text."""
        answer = await self.local.Explain(pb.ExplainRequest(node=node))
        return "\n".join(f"{each.subject}: {each.message} {each.remedy}" for each in answer.findings)

    @property
    def _socket(self) -> Path:
        return self.folder / "ipam.sock"

    def _tls(self, kind: pki.Kind, name: str) -> dict[str, Any]:
        # A folder for each: the authority's certificate is written beside each of them.
        folder = self.folder / "tls" / f"{kind}-{name}"
        stem = folder / f"{kind}-{name}"
        if not stem.with_suffix(".key").exists():
            pki.issue(self.folder / "ca", folder, kind, name)
        return {"ca": folder / "ca.pem", "certificate": f"{stem}.pem", "key": f"{stem}.key"}

    def _service(
        self, name: str, module: str, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> Process:
        config = self.folder / f"{name}.toml"
        config.write_text(to_toml(settings))
        return Process(name, module, ["--config", str(config)], self.folder / f"{name}.log", environment or {})

    async def _ipam_serves(self) -> bool:
        if not self._socket.exists():
            return False
        async with grpc.aio.insecure_channel(f"unix:{self._socket}") as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def to_toml(settings: Mapping[str, Any]) -> str:
    """Settings of one level of tables; plain values come first, as TOML wants it."""
    plain = [f"{key} = {_value(value)}" for key, value in settings.items() if not isinstance(value, Mapping)]
    for key, table in settings.items():
        if isinstance(table, Mapping):
            plain += [f"\n[{key}]", *(f"{json.dumps(name)} = {_value(value)}" for name, value in table.items())]
    return "\n".join(plain) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps([str(each) for each in value] if isinstance(value, list | tuple) else str(value))
