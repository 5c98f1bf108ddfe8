"""A registry as a process of its own, and nodes that speak to it over mutual TLS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime import pki
from services.runtime.client import aio_channel
from services.runtime.settings import TlsSettings

ROOT = Path(__file__).parents[3]
LOST_AFTER_S = 2.0


class RegistryProcess:
    """`python -m services.registry` on a free port, which it keeps when it is started again."""

    def __init__(self, folder: Path, store: str, socket: str = "registry.sock") -> None:
        self.folder = folder
        self.store = store
        self.socket = folder / socket
        self.port = 0
        self.standing_by = asyncio.Event()
        self.environment: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def tls(self, kind: str, name: str) -> TlsSettings:
        issued = pki.issue(self.folder / "ca", self.folder / "pki", kind, name)  # type: ignore[arg-type]
        return TlsSettings(ca=issued.ca, certificate=issued.certificate, key=issued.key)

    async def start(self) -> None:
        tls = self.tls("service", "registry")
        flags = {
            "store": self.store,
            "listen": f"127.0.0.1:{self.port}",
            "socket": self.socket,
            "tls.ca": tls.ca,
            "tls.certificate": tls.certificate,
            "tls.key": tls.key,
            "lost-after-s": LOST_AFTER_S,
            "heartbeat-write-s": 0.2,
            "log-format": "json",
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.registry",
            *words,
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        assert self._process.stderr is not None
        said = []
        async for line in self._process.stderr:
            said.append(line.decode())
            event = json.loads(line) if line.startswith(b"{") else {}
            if event.get("event") == "listening":
                (tcp,) = (on for on in event["on"] if not on.startswith("unix:"))
                self.port = int(tcp.rpartition(":")[2])
            if event.get("event", "").startswith("standing by"):
                self.standing_by.set()
            if event.get("event") == "serving":
                self._drain = asyncio.create_task(self._process.stderr.read())
                return
        raise AssertionError("the registry did not start:\n" + "".join(said))

    async def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            os.kill(process.pid, with_signal)
        return await asyncio.wait_for(process.wait(), 20)

    def channel(self, kind: str, name: str) -> grpc.aio.Channel:
        return aio_channel(f"127.0.0.1:{self.port}", self.tls(kind, name), "service/registry")

    def local(self) -> grpc.aio.Channel:
        return aio_channel(f"unix:{self.socket}", None)


class NodeStream:
    """A node's open stream, and all that it was told."""

    def __init__(self, process: RegistryProcess, name: str, announced_as: str = "") -> None:
        self.name = announced_as or name
        self.nodes: dict[str, registry_pb2.Node] = {}
        self.endpoints: dict[tuple[str, str], registry_pb2.Endpoint] = {}
        self.messages = 0
        self.upserts = 0
        self._channel = process.channel("node", name)
        self._snapshot: tuple[set[str], set[tuple[str, str]]] | None = None
        self.position: Any = None

    async def open(self, **more: Any) -> None:
        self.call = registry_pb2_grpc.RegistryServiceStub(self._channel).Watch()
        node = registry_pb2.Node(name=self.name, addresses=["10.0.0.10"])
        opening = registry_pb2.WatchRequest.Open(node=node, subscribe=True, position=self.position, **more)
        await self.call.write(registry_pb2.WatchRequest(open=opening))

    async def report(
        self, *ids: str, replace: bool = False, deleted: tuple[str, ...] = (), address: str = "", label: str = ""
    ) -> None:
        facts: dict[str, Any] = {"addresses": [address or "10.0.0.77"], "labels": {"app": label}}
        upserted = [registry_pb2.Endpoint(id=id, **facts) for id in ids]
        report = registry_pb2.WatchRequest.Endpoints(replace=replace, upserted=upserted, deleted_ids=deleted)
        await self.call.write(registry_pb2.WatchRequest(endpoints=report))

    async def beat(self) -> None:
        await self.call.write(registry_pb2.WatchRequest(heartbeat=registry_pb2.WatchRequest.Heartbeat()))

    async def keep_alive(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(LOST_AFTER_S / 5)

    async def read(self) -> None:
        response = await self.call.read()
        if not isinstance(response, registry_pb2.WatchResponse):
            raise EOFError(await self.call.code())
        self.messages += 1
        self.upserts += len(response.endpoints)
        if response.header.snapshot:
            self._snapshot = (set(self.nodes), set(self.endpoints))
        for node in response.nodes:
            self.nodes[node.name] = node
        for endpoint in response.endpoints:
            self.endpoints[endpoint.node, endpoint.id] = endpoint
        if self._snapshot is not None:
            self._snapshot[0].difference_update(node.name for node in response.nodes)
            self._snapshot[1].difference_update((one.node, one.id) for one in response.endpoints)
        gone = self._snapshot if self._snapshot is not None and response.header.complete else None
        for name in [*response.deleted_nodes, *(gone[0] if gone else ())]:
            self.nodes.pop(name, None)
        for key in [*((one.node, one.id) for one in response.deleted_endpoints), *(gone[1] if gone else ())]:
            self.endpoints.pop(key, None)
        if response.header.complete:
            self._snapshot = None
            self.position = response.header.position

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self.read()

    def has(self, node: str, *ids: str) -> bool:
        return {id for of, id in self.endpoints if of == node} == set(ids)

    def state(self, node: str) -> int:
        return self.nodes[node].state if node in self.nodes else registry_pb2.NODE_STATE_UNSPECIFIED

    async def close(self) -> None:
        await self._channel.close()


class ServiceManager:
    """What systemd is to a registry: a socket that is told how the start goes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._path))

    def tell(self, process: RegistryProcess) -> None:
        process.environment["NOTIFY_SOCKET"] = str(self._path)

    async def heard(self) -> str:
        async with asyncio.timeout(20):
            return (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[ServiceManager]:
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as folder:
        manager = ServiceManager(Path(folder))
        yield manager
        manager.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def registry_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RegistryProcess]:
    async for process in _running(tmp_path, f"sqlite:///{tmp_path}/registry.db"):
        yield process


@pytest.fixture
async def registry_anywhere(tmp_path: Path, registry_store_url: str) -> AsyncIterator[RegistryProcess]:
    """A registry on SQLite, and one on PostgreSQL."""
    async for process in _running(tmp_path, registry_store_url):
        yield process


@pytest.fixture
async def second_registry(tmp_path: Path, registry_anywhere: RegistryProcess) -> AsyncIterator[RegistryProcess]:
    """Another registry on the same store, not started."""
    process = RegistryProcess(tmp_path, registry_anywhere.store, "second.sock")
    try:
        yield process
    finally:
        await process.stop(signal.SIGKILL)


async def _running(folder: Path, store: str) -> AsyncIterator[RegistryProcess]:
    pki.create_ca(folder / "ca")
    process = RegistryProcess(folder, store)
    await process.start()
    try:
        yield process
    finally:
        await process.stop(signal.SIGKILL)


@pytest.fixture
async def node_stream() -> AsyncIterator[Callable[..., Any]]:
    """Opens a node's stream: `await node_stream(registry, "node-1")`."""
    async with AsyncExitStack() as stack:

        async def open_(process: RegistryProcess, name: str, announced_as: str = "") -> NodeStream:
            stream = NodeStream(process, name, announced_as)
            stack.push_async_callback(stream.close)
            await stream.open()
            return stream

        yield open_
