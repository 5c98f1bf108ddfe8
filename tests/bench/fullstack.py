"""A fleet through every real part: gRPC with mutual TLS, SQLite, Celery on Redis, worker processes, the SDK of each of
the three clouds, a fake of the cloud over HTTP. All of it shares this machine's CPUs, the fake cloud and the nodes of
the bench included. The baseline is the same fleet in one process: the service on SQLite, threads, a cloud in memory.

Memory is that of each process once every node has its addresses and the whole account has been listed, and the most it
ever was. The nodes, a connection of its own for each, live in the bench's process, which is not counted.

    python -m tests.bench fullstack -- --nodes 20                                      a quick run
    python -m tests.bench fullstack -- --cloud azure --nodes 100,1000 --addresses 20   with more addresses a node
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from ipam.testing import FreeBudget
from lab.clouds import CLOUDS, Choice, CloudName, chosen
from lab.site import NodeClient, Site, eventually
from services.api.ipam.v1 import ipam_pb2 as pb
from services.runtime.lifecycle import COLLECTOR_THRESHOLDS
from tests.bench.fleet import MARKS, TYPES, fleet
from tests.bench.report import Row
from tests.bench.rss import memory_rows

CALL_S: Final = 0.02
AMPLE: Final = {
    f"{kind}_{what}": 10_000 for kind in ("mutate", "read", "total") for what in ("per_s", "burst")
}  # fmt: skip
# AWS and Alibaba Cloud take no network larger than a /16: each has room for so many nodes.
A_NETWORK: Final = 2500
# Those of `fleet` hold 10 addresses; these hold 20.
LARGER: Final[Mapping[CloudName, str]] = {
    "aws": "m5.4xlarge", "azure": TYPES["azure"], "alibaba": "ecs.g6.4xlarge",
}  # fmt: skip
READY_S: Final = 600.0
# At once: all nodes are one process here, which could not finish thousands of handshakes within their deadlines.
CONNECTING: Final = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured at once."""

    cloud: CloudName
    nodes: int
    addresses: int
    workers: int
    threads: int

    @property
    def kind(self) -> str:
        return TYPES[self.cloud] if self.addresses <= MARKS.min_allocate else LARGER[self.cloud]

    @property
    def target(self) -> str:
        """For the peak of the IPAM service, in MB."""
        return "<= 600" if self.nodes >= 5000 and self.nodes * self.addresses >= 100_000 else ""

    def __str__(self) -> str:
        more = f" of {self.addresses} addresses" if self.addresses != MARKS.min_allocate else ""
        return f"full stack on {self.cloud}: {self.nodes} nodes{more} at once"


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="fullstack")
    parser.add_argument("--cloud", choices=[*CLOUDS, "all"], default="all")
    parser.add_argument("--nodes", default="100", help="sizes, separated by commas")
    parser.add_argument("--addresses", type=int, default=MARKS.min_allocate, help="of each node, 20 at most")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--threads", type=int, default=32, help="threads of each")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where the site lies; short, as sockets are")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.set_threshold(*COLLECTOR_THRESHOLDS)  # as every service does
    choice: Choice = options.cloud
    rows: list[Row] = []
    for nodes in (int(each) for each in options.nodes.split(",")):
        for kind in chosen(choice):
            rows += run(Shape(kind.name, nodes, options.addresses, options.workers, options.threads), options.folder)
    return rows


def run(shape: Shape, where: Path = Path("/tmp")) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir=where))
    try:
        return asyncio.run(measure(folder, shape))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(folder: Path, shape: Shape) -> list[Row]:
    # Before there is a site: the fleet in one process takes its time from nobody.
    beside = None
    if shape.addresses == MARKS.min_allocate:
        beside = await fleet(shape.nodes, FreeBudget(), "sqlite", shape.threads, shape.cloud)
    worker = {"threads": shape.threads, "budget": AMPLE, "log_level": "warning"}
    ipam = {"log_level": "warning", "lease_s": 60.0}
    async with Site(folder, cloud=shape.cloud, worker=worker, ipam=ipam, ec2=network_of(folder, shape)) as site:
        for number in range(1, shape.workers):
            await site.start_worker(f"worker-{number}")
        instances = await launched(site, shape)
        await site.certify([f"n{number}" for number in range(shape.nodes)])
        await site.ec2.faults(mutate_latency_s=CALL_S)
        await site.ec2.reset_calls()
        marks = pb.Watermarks(pre_allocate=MARKS.pre_allocate, min_allocate=shape.addresses)
        clients = [
            site.node(f"n{number}", each, watermarks=marks, release_excess=False)
            for number, each in enumerate(instances)
        ]
        async with AsyncExitStack() as stack:
            ready = await announce_all(stack, clients, shape.addresses)
            calls = await site.ec2.calls()
            await listed(site)
            memory = memory_rows(str(shape), site.pids, {site.kind.service: shape.target})
    return [
        Row(f"{shape}: wall, against one process", ready[-1], "s", baseline=beside.wall_s if beside else None),
        Row(f"{shape}: p50 time to ready", quantile(ready, 0.5), "s", baseline=beside.p50_s if beside else None),
        Row(f"{shape}: p99 time to ready", quantile(ready, 0.99), "s", baseline=beside.p99_s if beside else None),
        Row(f"{shape}: nodes ready per second", shape.nodes / ready[-1], "1/s"),
        Row(f"{shape}: mutating cloud calls a node", calls["mutating"] / shape.nodes, ""),
        Row(f"{shape}: all cloud calls a node", calls["total"] / shape.nodes, ""),
        *memory,
    ]


def network_of(folder: Path, shape: Shape) -> tuple[str, ...]:
    """Arguments of the fake, for a network with room for all nodes."""
    if shape.cloud == "azure":
        return ("--network-cidr", "10.0.0.0/14", "--subnet", "nodes=10.0.0.0/14")
    networks = [
        {
            "cidr": f"10.{number}.0.0/16",
            "subnets": [{"zone": "a", "cidr": f"10.{number}.0.0/16"}],
            "security_groups": [{"name": "nodes"}],
        }
        for number in range(-(-shape.nodes // A_NETWORK))
    ]
    kind, start = CLOUDS[shape.cloud], folder / "network.json"
    start.write_text(json.dumps({"account": kind.account, "region": kind.region, "vpc": networks}))
    return ("--start", str(start))


async def launched(site: Site, shape: Shape) -> list[str]:
    """Ids of as many instances as there are nodes, in all networks alike."""
    subnets = [each["id"] for each in (await site.ec2.state())["subnets"]]
    found: list[str] = []
    for start in range(0, shape.nodes, CONNECTING):
        numbers = range(start, min(start + CONNECTING, shape.nodes))
        asked = (site.ec2.launch(shape.kind, subnet_id=subnets[each % len(subnets)]) for each in numbers)
        found += await asyncio.gather(*asked)
    return found


async def announce_all(stack: AsyncExitStack, clients: list[NodeClient], addresses: int) -> list[float]:
    """Times to ready in seconds, ascending, from the moment that the first connect. `stack` ends the nodes."""
    started = time.perf_counter()
    connecting = asyncio.Semaphore(CONNECTING)

    async def until_ready(node: NodeClient) -> float:
        async with connecting:
            await stack.enter_async_context(node)
            await node.until(lambda: node.connected, timeout_s=READY_S)
        await node.until(lambda: len(node.addresses) >= addresses, timeout_s=READY_S)
        return time.perf_counter() - started

    return sorted(await asyncio.gather(*(until_ready(node) for node in clients)))


async def listed(site: Site) -> None:
    """Has the whole account listed and merged once, and returns when no intent is open any more."""
    await site.local.Resync(pb.ResyncRequest())

    async def nothing_open() -> bool:
        return not (await site.local.ListIntents(pb.ListIntentsRequest())).intents

    await eventually(nothing_open, "no intent is open", READY_S)


def quantile(ascending: list[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))]
