"""The cloud budget through a real Redis: grants a second, and a fleet that starts at once under a limit of calls.

Each node needs four mutating calls of 20 ms. One FIFO makes all nodes ready at the end; going on with nodes that are
begun makes half of them ready at half time, with the same number of calls.

    python -m tests.bench budget -- --nodes 100      a quick run
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import redis

from ipam.model import OperationClass
from ipam.ports import Standing
from services.runtime.redis import RedisServer
from services.worker.buckets import BudgetLimits, Rate
from services.worker.budget import RedisBudget, connect
from tests.bench.report import Row

CALLS_PER_NODE = 4
CALL_S = 0.02
AMPLE = Rate(1e6, 1e6)


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="budget")
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--rate", type=float, default=100.0, help="mutating calls a second")
    parser.add_argument("--burst", type=float, default=4.0)
    parser.add_argument("--grants", type=int, default=10_000)
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir="/tmp"))
    try:
        with RedisServer(folder) as server, connect(server.url) as client:
            return [
                Row("budget: grants through Redis, 8 threads", grants_per_s(client, options.grants, 8), "1/s"),
                *fleet_rows(client, options.nodes, Rate(options.rate, options.burst)),
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def grants_per_s(client: redis.Redis, grants: int, threads: int) -> float:
    budget = RedisBudget(client, "ample", BudgetLimits(AMPLE, AMPLE, AMPLE))
    budget.acquire(OperationClass.MUTATE, standing=Standing, deadline_s=60.0)
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(
            pool.map(lambda _: budget.acquire(OperationClass.MUTATE, standing=Standing, deadline_s=60.0), range(grants))
        )
    return grants / (time.perf_counter() - started)


def fleet_rows(client: redis.Redis, nodes: int, rate: Rate) -> list[Row]:
    least_s = (nodes * CALLS_PER_NODE - rate.burst) / rate.per_s
    begun_first = fleet(client, "begun-first", nodes, rate, order=True)
    fifo = fleet(client, "fifo", nodes, rate, order=False)
    what = f"budget: {nodes} nodes x {CALLS_PER_NODE} calls at {rate.per_s:g}/s"
    return [
        Row(f"{what}: wall, against the limit", begun_first[-1], "s", baseline=least_s, target="ratio <= 1.1"),
        Row(
            f"{what}: p50 time to ready, against p99",
            quantile(begun_first, 0.5),
            "s",
            baseline=quantile(begun_first, 0.99),
            target="ratio <= 0.6",
        ),
        Row(f"{what}: one FIFO, p50 against p99", quantile(fifo, 0.5), "s", baseline=quantile(fifo, 0.99)),
        Row(f"{what}: p50, against one FIFO's", quantile(begun_first, 0.5), "s", baseline=quantile(fifo, 0.5)),
    ]


def fleet(client: redis.Redis, name: str, nodes: int, rate: Rate, *, order: bool) -> list[float]:
    """Times to ready in seconds, ascending; one thread a node, all announced at once."""
    budget = RedisBudget(client, name, BudgetLimits(rate, AMPLE, AMPLE))
    gate = threading.Barrier(nodes + 1)

    def node(_: int) -> float:
        gate.wait()
        for call in range(CALLS_PER_NODE):
            standing = partial(Standing, begun=order and call > 0)
            budget.acquire(OperationClass.MUTATE, standing=standing, deadline_s=3600.0)
            time.sleep(CALL_S)  # the cloud's answer
        return time.perf_counter() - started

    with ThreadPoolExecutor(nodes) as pool:
        ready = [pool.submit(node, each) for each in range(nodes)]
        started = time.perf_counter()
        gate.wait()
        return sorted(each.result() for each in ready)


def quantile(ascending: list[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))]
