"""A fleet through every real part: gRPC with mutual TLS, SQLite, Celery on Redis, worker processes, boto3, a fake EC2
over HTTP. All of it shares this machine's CPUs, the fake cloud and the nodes of the bench included. The baseline is the
same fleet in one process: the service on SQLite, threads, and a cloud in memory.

    python -m tests.bench fullstack -- --nodes 20      a quick run
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from ipam.testing import FreeBudget
from lab.site import NodeClient, Site
from services.api.ipam.v1 import ipam_pb2 as pb
from tests.bench.fleet import Run, fleet
from tests.bench.report import Row

CALL_S = 0.02
AMPLE = {"mutate_per_s": 10_000, "mutate_burst": 10_000, "read_per_s": 10_000, "read_burst": 10_000}
AMPLE |= {"total_per_s": 10_000, "total_burst": 10_000}


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="fullstack")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--threads", type=int, default=32, help="threads of each")
    options = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    in_process = asyncio.run(fleet(options.nodes, FreeBudget(), "sqlite", options.threads))
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir="/tmp"))
    try:
        return asyncio.run(measure(folder, options.nodes, options.workers, options.threads, in_process))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(folder: Path, nodes: int, workers: int, threads: int, in_process: Run) -> list[Row]:
    worker = {"threads": threads, "budget": AMPLE, "log_level": "warning"}
    async with Site(folder, worker=worker, ipam={"log_level": "warning", "lease_s": 60.0}) as site:
        for number in range(1, workers):
            await site.start_worker(f"worker-{number}")
        instances = [await site.ec2.launch("m4.large") for _ in range(nodes)]
        await site.ec2.faults(mutate_latency_s=CALL_S)
        await site.ec2.reset_calls()
        ready = await announce_all(site, instances)
        calls = await site.ec2.calls()
    what = f"full stack: {nodes} nodes at once, {workers} x {threads} worker threads"
    return [
        Row(f"{what}: wall, against one process", ready[-1], "s", baseline=in_process.wall_s),
        Row(f"{what}: p50 time to ready", quantile(ready, 0.5), "s", baseline=in_process.p50_s),
        Row(f"{what}: p99 time to ready", quantile(ready, 0.99), "s", baseline=in_process.p99_s),
        Row(f"{what}: nodes ready per second", nodes / ready[-1], "1/s"),
        Row(f"{what}: mutating cloud calls a node", calls["mutating"] / nodes, ""),
        Row(f"{what}: all cloud calls a node", calls["total"] / nodes, ""),
    ]


async def announce_all(site: Site, instances: list[str]) -> list[float]:
    """Times to ready in seconds, ascending, from the moment that all begin to connect."""
    marks = pb.Watermarks(pre_allocate=1, min_allocate=10)
    clients = [site.node(f"n{number}", each, watermarks=marks) for number, each in enumerate(instances)]
    started = time.perf_counter()

    async def until_ready(node: NodeClient) -> float:
        await node.until(lambda: len(node.addresses) >= 10, timeout_s=600.0)
        return time.perf_counter() - started

    async with AsyncExitStack() as stack:
        for node in clients:
            await stack.enter_async_context(node)
        return sorted(await asyncio.gather(*(until_ready(node) for node in clients)))


def quantile(ascending: list[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))]
