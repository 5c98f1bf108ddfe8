"""Pods of 200 nodes wait for addresses while the account allows 4 calls a second.

The whole chain runs in one process: PoolService, a queue, worker threads with an Executor, the budget's own buckets,
and a cloud in memory. Three kinds of burst:

    wait      on each node four more pods start than it has free addresses, all at once; one call serves a node
    rollout   the same pods start one after the other within a minute, so that a node's call has to wait for its turn
              while more of them come
    new       nodes without any address, with pods that wait: filling a node takes four calls, serving its pods one

Beside each runs the same behind one FIFO: what waits for a turn goes in the order in which it came, and asks for what
was wanted when it got into the line; a node's work is done as a whole. A second row has the FIFO with what came of
this bench beside order: pods' addresses first, and calls that are decided on at their turn.

The clock is ten times faster than the wall's: minutes of waiting take seconds. Rows say how long pods that found
no address waited. With `wait` alone no order can be better than another: one call for each node takes 50 s. In a fleet
where other nodes top up their pools at the same time, pods go before these.

    python -m tests.bench burst -- --kinds rollout,new
    python -m tests.bench burst -- --kinds wait --others 0,400
"""

from __future__ import annotations

import argparse
import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ipam.config import IpamConfig
from ipam.errors import Throttled
from ipam.executor import Executor
from ipam.model import Claim, NodeSpec, OperationClass, PoolInterface, Subnet, Usage, Watermarks
from ipam.ports import BUDGET, Standing
from ipam.service import PoolService
from ipam.testing import FakeCloud, LocalJournal, MemoryStore, on_loop
from services.worker.buckets import LONGEST_SLEEP_S, BudgetLimits, LocalBucket, Place, Rate
from tests.bench.fleet import ThreadQueue, quantile
from tests.bench.report import Row

SPEED = 10.0
CALL_S = 0.5
RATE = Rate(4.0, 20.0)
AMPLE = Rate(1e6, 1e6)
BURSTING = 200
FREE = 8
MORE = 4  # pods beyond the free addresses
ROLLOUT_S = 60.0
THREADS = 64
LEASE_S = 60.0


class FastClock:
    def __init__(self) -> None:
        self._from = time.monotonic()

    def now(self) -> float:
        return 1e9 + self.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self._from) * SPEED


@dataclass(frozen=True)
class Order:
    """Who goes first, and what a call asks for.

    :ivar fifo: what comes first goes first, in the queue and in the line.
    :ivar early: a node's work is done as a whole, and asks for what was wanted when it got into the line.
    """

    name: str
    fifo: bool = False
    early: bool = False


OURS = Order("ours")
FIFO = Order("one FIFO", fifo=True, early=True)
FIFO_LATE = Order("one FIFO that asks at its turn", fifo=True)


class Line:
    """The account's budget by its own buckets, waited for as RedisBudget does."""

    def __init__(self, clock: FastClock, order: Order) -> None:
        self._clock = clock
        self._order = order
        self._bucket: LocalBucket | None = None

    def limit(self) -> None:
        """From now on calls are limited, with an empty bucket, as one has who was busy before."""
        self._bucket = LocalBucket(BudgetLimits(RATE, AMPLE, AMPLE), monotonic=self._clock.monotonic)

    def lift(self) -> None:
        self._bucket = None

    def acquire(self, operation_class: OperationClass, *, standing: Callable[[], Standing], deadline_s: float) -> float:
        bucket = self._bucket
        if bucket is None or operation_class is OperationClass.READ:
            return 0.0
        fifo = self._order.fifo
        started = self._clock.monotonic()
        place = Place(operation_class, 0 if fifo else standing().rank)
        while self._bucket is not None:
            verdict = bucket.attempt(place)
            if verdict.granted:
                break
            if not fifo and self._clock.monotonic() - started + verdict.wait_s > deadline_s:
                bucket.leave(place)
                raise Throttled("no turn in time", operation=BUDGET, retry_after_s=verdict.wait_s)
            time.sleep(min(verdict.wait_s, LONGEST_SLEEP_S) / SPEED)
            if self._order.early:
                continue
            rank = standing().rank  # asked by a FIFO too, since what is wanted is asked for anew with it
            if not fifo and rank != place.rank:
                bucket.leave(place)
                place = Place(operation_class, rank)
        return 0.0 if self._order.early else self._clock.monotonic() - started

    def throttled(self, operation_class: OperationClass) -> None:
        raise AssertionError("this cloud does not throttle")

    def succeeded(self, operation_class: OperationClass) -> None:
        pass


class Queue(ThreadQueue):
    def __init__(self, order: Order) -> None:
        super().__init__()
        self._order = order

    async def enqueue(self, intent_id: str, *, delay_s: float = 0.0, priority: int = 0) -> None:
        await super().enqueue(intent_id, delay_s=delay_s / SPEED, priority=0 if self._order.fifo else priority)


class Journal(LocalJournal):
    """With `early` a claim says nothing of pods that wait: the work is done as a whole."""

    order = OURS

    def claim(self, intent_id: str, holder: str) -> Claim | None:
        claim = super().claim(intent_id, holder)
        if claim is None or claim.goal is None or not self.order.early:
            return claim
        return replace(claim, goal=replace(claim.goal, first=0))

    def record(self, intent_id, fence, steps, instance=None):  # type: ignore[no-untyped-def]
        goal = super().record(intent_id, fence, steps, None if self.order.early else instance)
        return None if self.order.early else goal


@dataclass
class Pods:
    """Of one node: those that have an address, and since when the others wait."""

    leased: int = 0
    waiting: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    sequence: int = 0
    told: list[str] = field(default_factory=list)

    def serve(self, now: float) -> bool:
        """Gives what is free to those that wait; returns whether that changed anything."""
        before = len(self.waiting)
        while self.waiting and self.leased < len(self.told):
            self.waits_s.append(now - self.waiting.pop(0))
            self.leased += 1
        return len(self.waiting) < before

    def start(self, now: float) -> None:
        self.waiting.append(now)
        if self.leased < len(self.told):  # it found one
            self.waiting.pop()
            self.leased += 1

    def usage(self) -> Usage:
        self.sequence += 1
        return Usage(in_use=frozenset(self.told[: self.leased]), pending_pods=len(self.waiting), sequence=self.sequence)


@dataclass(frozen=True)
class Burst:
    """:ivar starts: seconds after which a pod starts on a node, ascending; nodes by number."""

    others: int
    type: str
    marks: Watermarks
    new: bool
    starts: list[tuple[float, int]]


def bursts(kind: str, others: int, seed: int = 1) -> Burst:
    chance = random.Random(seed)
    order = list(range(BURSTING))
    chance.shuffle(order)
    marks = Watermarks(FREE)
    if kind == "new":
        starts = [(0.0, node) for node in order for _ in range(MORE)]
        return Burst(0, "m4.large", Watermarks(pre_allocate=1, min_allocate=10), True, starts)
    everywhere = list(range(BURSTING + others))
    chance.shuffle(everywhere)
    topping = [(0.0, node) for node in everywhere for _ in range(FREE - 2)]
    if kind == "wait":
        return Burst(others, "m5.4xlarge", marks, False, topping + [(0.0, n) for n in order for _ in range(2 + MORE)])
    spread = [(chance.uniform(0.0, ROLLOUT_S), node) for node in order for _ in range(2 * FREE + MORE)]
    return Burst(others, "m5.4xlarge", marks, False, sorted(spread))


@dataclass(frozen=True)
class Waits:
    """Ascending, in seconds of the fast clock; of pods that found no address."""

    waited_s: list[float]
    calls: int


async def run(burst: Burst, order: Order) -> Waits:
    clock = FastClock()
    cloud = FakeCloud(
        latency_s=CALL_S / SPEED, subnets=[Subnet("subnet-a", "10.0.0.0/12", "zone-a", "vpc-1", 0)], page_size=1000
    )
    names = [f"n{each}" for each in range(BURSTING + burst.others)]
    specs = [NodeSpec(name, cloud.launch(burst.type).id, watermarks=burst.marks) for name in names]
    pods = {name: Pods() for name in names}
    filled, served, changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    news: set[str] = set()
    begun = started = False

    def told(node: str, interfaces: Mapping[str, PoolInterface]) -> None:
        mine = pods[node]
        known = set(mine.told)
        mine.told += [a for each in interfaces.values() for a in each.addresses if a not in known]
        if mine.serve(clock.monotonic()):
            news.add(node)
            changed.set()
        if not begun and min(len(each.told) for each in pods.values()) >= FREE:
            filled.set()
        if started and not any(each.waiting for each in pods.values()):
            served.set()

    line, queue = Line(clock, order), Queue(order)
    config = IpamConfig(account="1", region="r", lease_s=LEASE_S, resync_interval_s=1e6, sweep_interval_s=600.0)
    service = PoolService(config, cloud.capabilities, MemoryStore(clock), queue, clock, on_pool_change=told)
    journal = Journal(service, on_loop(asyncio.get_running_loop()))
    journal.order = order
    executor = Executor(cloud, line, journal, clock)

    def worker(number: int) -> None:
        while (intent_id := queue.take()) is not None:
            executor.perform(intent_id, f"worker-{number}")

    async def answer() -> None:
        """Nodes say what they use as soon as it has changed."""
        while True:
            await changed.wait()
            changed.clear()
            while news:
                name = news.pop()
                await service.report(name, pods[name].usage())

    workers = [threading.Thread(target=worker, args=(each,), daemon=True) for each in range(THREADS)]
    for each in workers:
        each.start()
    await service.start()
    running = [asyncio.create_task(service.run()), asyncio.create_task(answer())]
    if not burst.new:
        await asyncio.gather(*(service.announce(spec, Usage()) for spec in specs))
        await filled.wait()
        await asyncio.sleep(0.1)
    before = cloud.mutating_calls()
    line.limit()
    begun = True
    if burst.new:  # they come with the pods that wait for them
        for _, node in burst.starts:
            pods[names[node]].start(clock.monotonic())
        await asyncio.gather(*(service.announce(spec, pods[spec.name].usage()) for spec in specs))
    else:
        await _start(burst, names, pods, service, clock)
    started = True
    if any(each.waiting for each in pods.values()):
        await served.wait()
    for task in running:
        task.cancel()
    calls = cloud.mutating_calls() - before
    line.lift()
    queue.close(THREADS)
    for each in workers:
        await asyncio.to_thread(each.join)
    return Waits(sorted(wait for each in pods.values() for wait in each.waits_s), calls)


async def _start(burst: Burst, names: list[str], pods: dict[str, Pods], service: PoolService, clock: FastClock) -> None:
    """Starts pods at their times; those of a node that start at once are told of together."""
    began = clock.monotonic()
    ahead = burst.starts[::-1]
    while ahead:
        at, node = ahead.pop()
        await asyncio.sleep(max(began + at - clock.monotonic(), 0.0) / SPEED)
        mine = pods[names[node]]
        mine.start(clock.monotonic())
        while ahead and ahead[-1] == (at, node):
            ahead.pop()
            mine.start(clock.monotonic())
        await service.report(names[node], mine.usage())


def rows_of(what: str, burst: Burst, target: str) -> list[Row]:
    ours, fifo, late = (asyncio.run(run(burst, order)) for order in (OURS, FIFO, FIFO_LATE))
    quantiles = {name: [quantile(each.waited_s, part) for part in (0.5, 0.99)]
                 for name, each in (("ours", ours), ("fifo", fifo), ("late", late))}  # fmt: skip
    return [
        Row(f"{what}: p50 of the pods that wait, against one FIFO", quantiles["ours"][0], "s", quantiles["fifo"][0]),
        Row(f"{what}: p99, against one FIFO", quantiles["ours"][1], "s", quantiles["fifo"][1], target=target),
        Row(f"{what}: p99, against one FIFO with all but the order", quantiles["ours"][1], "s", quantiles["late"][1]),
        Row(f"{what}: calls meanwhile, against one FIFO", ours.calls, "calls", fifo.calls),
    ]


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="burst", description=__doc__)
    parser.add_argument("--kinds", default="new,rollout,wait")
    parser.add_argument("--others", default="0,400,800", help="nodes that top up at the same time, for the kind wait")
    options = parser.parse_args(argv)
    rows = [Row("burst: one call for each of 200 nodes at 4/s takes", BURSTING / RATE.per_s, "s")]
    for kind in options.kinds.split(","):
        if kind == "wait":
            for others in (int(each) for each in options.others.split(",") if each):
                what = f"burst: pods of 200 nodes start at once, {others} others top up"
                rows += rows_of(what, bursts(kind, others), "ratio <= 0.5" if others >= 400 else "")
        else:
            what = {"new": "burst: 200 new nodes with pods", "rollout": "burst: a rollout on 200 nodes in a minute"}[
                kind
            ]
            rows += rows_of(what, bursts(kind, 0), "ratio <= 0.5" if kind == "new" else "")
    return rows
