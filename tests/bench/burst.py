"""Pods of 200 nodes wait for addresses while the account allows 4 calls a second, in a fleet that tops up its pools.

The whole chain runs in one process: PoolService, a queue, worker threads with an Executor, the budget's own buckets,
and a cloud in memory. All nodes use up free addresses at once; on 200 of them more pods start than there are, so these
wait. Beside it runs the same with one FIFO: the queue and the line of calls take everything as it comes.

The clock is 20 times faster than the wall's, so that minutes of waiting take seconds. Rows say how long pods that found
no address waited. By arithmetic no order does better than the calls of these 200 nodes themselves need, which the first
row states: with those nodes alone, FIFO is as good as anything.

    python -m tests.bench burst -- --others 0,400
"""

from __future__ import annotations

import argparse
import asyncio
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ipam.config import IpamConfig
from ipam.executor import Executor
from ipam.model import NodeSpec, OperationClass, PoolInterface, Subnet, Usage, Watermarks
from ipam.service import PoolService
from ipam.testing import FakeCloud, LocalJournal, MemoryStore, on_loop
from services.worker.buckets import BudgetLimits, LocalBucket, Place, Rate
from tests.bench.fleet import ThreadQueue, quantile
from tests.bench.report import Row

SPEED = 20.0
CALL_S = 0.5
RATE = Rate(4.0, 20.0)
AMPLE = Rate(1e6, 1e6)
BURSTING = 200
FREE = 8
MORE = 4  # pods beyond the free addresses
THREADS = 64


class FastClock:
    def __init__(self) -> None:
        self._from = time.monotonic()

    def now(self) -> float:
        return 1e9 + self.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self._from) * SPEED


class Line:
    """The account's budget by its own buckets; with `fifo`, nodes already begun gain nothing."""

    def __init__(self, clock: FastClock, *, fifo: bool) -> None:
        self._clock = clock
        self._fifo = fifo
        self._bucket: LocalBucket | None = None

    def limit(self) -> None:
        """From now on calls are limited, with an empty bucket, as one has who was busy before."""
        self._bucket = LocalBucket(BudgetLimits(RATE, AMPLE, AMPLE), monotonic=self._clock.monotonic)

    def lift(self) -> None:
        self._bucket = None

    def acquire(self, operation_class: OperationClass, *, begun: bool, deadline_s: float) -> float:
        if self._bucket is None or operation_class is OperationClass.READ:
            return 0.0
        started = self._clock.monotonic()
        place = Place(operation_class, begun and not self._fifo)
        while (bucket := self._bucket) is not None:
            verdict = bucket.attempt(place)
            if verdict.granted:
                break
            time.sleep(min(verdict.wait_s, 1.0) / SPEED)
        return self._clock.monotonic() - started

    def throttled(self, operation_class: OperationClass) -> None:
        raise AssertionError("this cloud does not throttle")

    def succeeded(self, operation_class: OperationClass) -> None:
        pass


class Queue(ThreadQueue):
    def __init__(self, *, fifo: bool) -> None:
        super().__init__()
        self._fifo = fifo

    async def enqueue(self, intent_id: str, *, delay_s: float = 0.0, priority: int = 0) -> None:
        await super().enqueue(intent_id, delay_s=delay_s / SPEED, priority=0 if self._fifo else priority)


@dataclass(frozen=True)
class Waits:
    """Ascending, in seconds of the fast clock."""

    waited_s: list[float]
    calls: int


async def burst(others: int, *, fifo: bool, seed: int = 1) -> Waits:
    clock = FastClock()
    cloud = FakeCloud(
        latency_s=CALL_S / SPEED, subnets=[Subnet("subnet-a", "10.0.0.0/12", "zone-a", "vpc-1", 0)], page_size=1000
    )
    names = [f"n{each}" for each in range(BURSTING + others)]
    specs = [NodeSpec(name, cloud.launch("m5.4xlarge").id, watermarks=Watermarks(FREE)) for name in names]
    pools: dict[str, list[str]] = {}
    wanted: dict[str, int] = {}
    ended: dict[str, float] = {}
    filled, served = asyncio.Event(), asyncio.Event()

    def told(node: str, interfaces: Mapping[str, PoolInterface]) -> None:
        pools[node] = [address for each in interfaces.values() for address in each.addresses]
        if len(pools) == len(names) and not filled.is_set() and min(map(len, pools.values())) >= FREE:
            filled.set()
        if node in wanted and node not in ended and len(pools[node]) >= wanted[node]:
            ended[node] = clock.monotonic()
            if len(ended) == len(wanted):
                served.set()

    line, queue = Line(clock, fifo=fifo), Queue(fifo=fifo)
    config = IpamConfig(account="1", region="r", lease_s=600.0, resync_interval_s=1e6, sweep_interval_s=600.0)
    service = PoolService(config, cloud.capabilities, MemoryStore(clock), queue, clock, on_pool_change=told)
    executor = Executor(cloud, line, LocalJournal(service, on_loop(asyncio.get_running_loop())), clock)

    def worker(number: int) -> None:
        while (intent_id := queue.take()) is not None:
            executor.perform(intent_id, f"worker-{number}")

    workers = [threading.Thread(target=worker, args=(each,), daemon=True) for each in range(THREADS)]
    for each in workers:
        each.start()
    await service.start()
    running = asyncio.create_task(service.run())
    await asyncio.gather(*(service.announce(spec, Usage()) for spec in specs))
    await filled.wait()
    await asyncio.sleep(0.1)
    before = cloud.mutating_calls()
    line.limit()
    order = list(names)
    random.Random(seed).shuffle(order)
    started: dict[str, float] = {}
    for name in order:  # on each node most of what was free is used now
        await service.report(name, Usage(in_use=frozenset(pools[name][: FREE - 2]), sequence=1))
    for name in (each for each in order if int(each[1:]) < BURSTING):
        started[name] = clock.monotonic()
        wanted[name] = FREE + MORE
        usage = Usage(in_use=frozenset(pools[name][:FREE]), pending_pods=MORE, sequence=2)
        await service.report(name, usage)
    await served.wait()
    running.cancel()
    calls = cloud.mutating_calls() - before
    line.lift()
    queue.close(THREADS)
    await asyncio.to_thread(lambda: [each.join() for each in workers])
    return Waits(sorted(ended[name] - started[name] for name in wanted), calls)


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="burst", description=__doc__)
    parser.add_argument("--others", default="0,400,800", help="nodes that top up at the same time")
    options = parser.parse_args(argv)
    rows = [Row("burst: one call for each of 200 nodes at 4/s takes", BURSTING / RATE.per_s, "s")]
    for others in (int(each) for each in options.others.split(",") if each):
        fifo = asyncio.run(burst(others, fifo=True))
        ours = asyncio.run(burst(others, fifo=False))
        what = f"burst: pods of 200 nodes wait, {others} others top up, 4 calls/s"
        target = "ratio <= 0.5" if others >= 400 else ""
        rows += [
            Row(f"{what}: p50, against one FIFO", quantile(ours.waited_s, 0.5), "s", quantile(fifo.waited_s, 0.5)),
            Row(
                f"{what}: p99, against one FIFO", quantile(ours.waited_s, 0.99), "s", quantile(fifo.waited_s, 0.99),
                target=target,
            ),
        ]  # fmt: skip
    return rows
