"""Memory of the registry and of node daemons in a cluster of 5,000 nodes and 100,000 pods, and of both in a small one.

The registry is a process of its own on SQLite. Each node announces itself on a connection of its own with mutual TLS,
tells its pods and its heartbeats, as its daemon does; some of them watch. Two daemons are real, each in a namespace
with the programs loaded: one that is there while the cluster grows, and one that starts when it is large. The side of
the nodes lives in the process of the bench, which is not counted. What the daemons' maps take is the kernel's.

    python -m tests.bench memory -- --nodes 5000
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog

from lab.site.processes import Process, eventually, free_port, http_ok
from lab.site.site import to_toml
from services.api.registry.v1 import registry_pb2 as pb
from services.api.registry.v1 import registry_pb2_grpc as pb_grpc
from services.node.clients import RegistryClient
from services.runtime import pki
from services.runtime.client import aio_channel
from services.runtime.settings import TlsSettings
from services.runtime.watch import Follower, Position
from tests.bench.report import Row
from tests.bench.rss import map_memory_mb, memory_rows
from tests.datapath.bed import Bed, Eni, Node

PODS: Final = 20
SMALL: Final = 2
HEARTBEAT_S: Final = 10.0
APPS: Final = 500
WITHIN_S: Final = 600.0
# All nodes are one process here, which could not finish thousands of handshakes within their deadlines.
CONNECTING: Final = 100


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench memory")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--watchers", type=int, default=50, help="nodes that are told of the others")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    # Without root there is no daemon to measure.
    with ExitStack() as stack:
        bed = stack.enter_context(Bed()) if os.geteuid() == 0 else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plimsoll-bench-", dir="/tmp")))
        return asyncio.run(measure(folder, bed, options.nodes, options.watchers))


async def measure(folder: Path, bed: Bed | None, nodes: int, watchers: int) -> list[Row]:
    async with serving(folder) as registry, AsyncExitStack() as stack:
        fleet = await made(registry, nodes, watchers)
        rows: list[Row] = []
        await announce(stack, registry, fleet[:SMALL])
        what = f"memory: {SMALL} nodes, {SMALL * PODS} pods"
        daemons: list[Node] = []
        if bed is not None:
            daemons.append(await daemon(bed, "a", registry, SMALL))
            rows += of_daemon(what, daemons[0], "the node daemon")
        rows += memory_rows(what, {"the registry": registry.process.pid})
        began = time.monotonic()
        await announce(stack, registry, fleet[SMALL:])
        large = f"memory: {nodes} nodes, {nodes * PODS:,} pods"
        rows.append(Row(f"{large}: announced", time.monotonic() - began, "s"))
        if bed is not None:
            await knows(daemons[0], nodes)
            daemons.append(await daemon(bed, "b", registry, nodes))
            rows += of_daemon(large, daemons[0], "a node daemon that was there before")
            rows += of_daemon(large, daemons[1], "a node daemon that starts in it")
        await heard_alike(fleet)
        rows += memory_rows(f"{large}, {watchers} watch", {"the registry": registry.process.pid})
        return rows


class Registry:
    """The registry as a process, and nodes' certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = f"127.0.0.1:{free_port()}"
        self.socket = folder / "registry.sock"
        self.metrics = folder / "registry.metrics"
        settings = {
            "listen": self.target,
            "socket": self.socket,
            "store": f"sqlite:///{folder}/registry.db",
            "metrics_listen": f"unix:{self.metrics}",
            "log_level": "warning",
        }
        pki.create_ca(folder / "ca")
        tls = self.tls("service", "registry").model_dump()
        config = folder / "registry.toml"
        config.write_text(to_toml({**settings, "tls": tls}))
        log = folder / "registry.log"
        self.process = Process("registry", "services.registry", ["--config", str(config)], log, {})

    def tls(self, kind: pki.Kind, name: str) -> TlsSettings:
        # A folder for each: the authority's certificate is written beside each of them.
        issued = pki.issue(self.folder / "ca", self.folder / "tls" / name, kind, name)
        return TlsSettings(ca=issued.ca, certificate=issued.certificate, key=issued.key)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Registry]:
    registry = Registry(folder)
    try:
        await registry.process.start(lambda: http_ok("http://registry/healthz", registry.metrics))
        yield registry
    finally:
        await registry.process.end()


class Announced:
    """A node that tells its pods, by the daemon's own client; one that watches takes and drops what it is told.

    :ivar revision: the last one that it was told of completely.
    """

    def __init__(self, registry: Registry, number: int, tls: TlsSettings, *, watches: bool) -> None:
        self.name = name_of(number)
        self.watches = watches
        self.revision = 0
        high, low = divmod(number, 200)
        self._node = pb.Node(
            name=self.name, addresses=[f"10.250.{high}.{low + 1}"], cloud="aws", instance_id=f"i-{number:017x}",
            instance_type="m5.4xlarge", zone="eu-west-1a", routing_mode="native",
        )  # fmt: skip
        self._pods = [pod(self.name, number * PODS + each) for each in range(PODS)]
        self._connect = partial(aio_channel, registry.target, tls, "service/registry")
        self._client = RegistryClient(
            registry.target, self._connect, self._node, endpoints=lambda: self._pods, changed=asyncio.Event(),
            heartbeat_s=HEARTBEAT_S,
        )  # fmt: skip
        self._follower: Follower[pb.WatchRequest, pb.WatchResponse] = Follower(
            self.name, self._open, self._apply, lambda ack: pb.WatchRequest(ack=ack)
        )

    async def run(self) -> None:
        if not self.watches:
            await self._client.run()
            return
        async with self._connect() as self._channel, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run())
            tasks.create_task(self._beat())

    async def connected(self) -> bool:
        return self.revision > 0 if self.watches else self._client.state.connected

    async def _open(self, position: Position) -> Any:
        call = pb_grpc.RegistryServiceStub(self._channel).Watch()
        opening = pb.WatchRequest.Open(node=self._node, subscribe=True, position=position.to_proto())
        await call.write(pb.WatchRequest(open=opening))
        await call.write(pb.WatchRequest(endpoints=pb.WatchRequest.Endpoints(replace=True, upserted=self._pods)))
        return call

    async def _apply(self, response: pb.WatchResponse) -> None:
        if response.header.complete:
            self.revision = response.header.position.revision

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._follower.send(pb.WatchRequest(heartbeat=pb.WatchRequest.Heartbeat()))


def name_of(number: int) -> str:
    return f"node-{number}"


async def made(registry: Registry, nodes: int, watchers: int) -> list[Announced]:
    """The nodes with their certificates, each of which is a few writes to the disk."""
    with ThreadPoolExecutor(32) as threads:
        issuing = [threads.submit(registry.tls, "node", name_of(number)) for number in range(nodes)]
        issued = await asyncio.gather(*map(asyncio.wrap_future, issuing))
    return [Announced(registry, number, tls, watches=number < watchers) for number, tls in enumerate(issued)]


def pod(node: str, number: int) -> pb.Endpoint:
    high, low = divmod(number, 1 << 8)
    return pb.Endpoint(
        id=f"{number:064x}/eth0",
        node=node,
        pod=f"default/web-{number}",
        addresses=[f"10.{high >> 8}.{high & 255}.{low}"],
        mac="02:00:00:00:00:01",
        interface_id=f"eni-{number // 10:017x}",
        labels={"app": f"app-{number % APPS}", "io.kubernetes.pod.namespace": "default", "plimsoll.zone": "eu-west-1a"},
    )


async def announce(stack: AsyncExitStack, registry: Registry, fleet: list[Announced]) -> None:
    """Returns once the registry knows all of them with all their pods. `stack` ends them."""
    running: list[asyncio.Task[None]] = []

    async def end() -> None:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    stack.push_async_callback(end)
    connecting = asyncio.Semaphore(CONNECTING)

    async def start(node: Announced) -> None:
        async with connecting:
            running.append(asyncio.create_task(node.run()))
            await eventually(node.connected, f"{node.name} is connected", WITHIN_S)

    await asyncio.gather(*(start(each) for each in fleet))
    wanted = {each.name for each in fleet}
    local = pb_grpc.RegistryServiceStub(await stack.enter_async_context(aio_channel(f"unix:{registry.socket}", None)))

    async def known() -> bool:
        whole, token = set(), ""
        while True:
            answer = await local.ListNodes(pb.ListNodesRequest(page_size=1000, page_token=token))
            whole |= {each.name for each in answer.nodes if each.endpoints == PODS}
            token = answer.next_page_token
            if not token:
                return wanted <= whole
            await asyncio.sleep(0.2)  # what is measured should not be busy with being asked

    await eventually(known, "the registry knows all nodes", WITHIN_S)


async def heard_alike(fleet: list[Announced]) -> None:
    """Returns once those that watch have been told of everything that any of them knows."""

    async def alike() -> bool:
        return len({each.revision for each in fleet if each.watches}) <= 1

    await eventually(alike, "all that watch know the same", WITHIN_S)


async def daemon(bed: Bed, name: str, registry: Registry, nodes: int) -> Node:
    """A node daemon in a namespace, which knows the cluster."""
    number = 200 + len(bed.nodes)
    node = bed.node(
        name, Eni(0, f"10.251.{number}.2", [f"10.251.{number}.{each}" for each in range(10, 30)], f"10.251.{number}.1"),
        registry=f"unix:{registry.socket}", metrics_listen=f"unix:{bed.folder / name / 'metrics'}",
        log_level="warning",
    )  # fmt: skip
    node.fill_journal()
    await asyncio.to_thread(node.start)
    await knows(node, nodes)
    return node


async def knows(node: Node, nodes: int) -> None:
    """Returns once the daemon has what the registry knows of so many nodes."""

    async def has_all() -> bool:
        text = await scraped(node.folder / "metrics")
        return value_of(text, "plimsoll_node_cluster_endpoints") >= nodes * PODS

    await eventually(has_all, f"{node.name} knows all pods", WITHIN_S)


async def scraped(path: Path) -> str:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://node/metrics") as answer,
    ):
        return await answer.text()


def value_of(text: str, name: str) -> float:
    """The value of a metric without labels; 0: it is not there."""
    for line in text.splitlines():
        metric, _, value = line.partition(" ")
        if metric == name:
            return float(value)
    return 0.0


def of_daemon(what: str, node: Node, name: str) -> list[Row]:
    assert node.process is not None
    pid = node.process.pid
    return [*memory_rows(what, {name: pid}), Row(f"{what}: the kernel's maps of {name}", map_memory_mb(pid), "MB")]
