"""A worker's consumer: takes by priority, outlives its Redis, survives what a task raises, and stops in order."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ipam.errors import StoreError, Unavailable
from ipam.model import Done, Outcome
from services.runtime.queue import CeleryQueue, celery_app, queue_name
from services.runtime.redis import RedisServer
from services.worker.consumer import CeleryRunner
from services.worker.metrics import WorkerMetrics
from services.worker.tasks import register

pytestmark = pytest.mark.redis

QUEUE = queue_name("aws", "123456789012", "eu-west-1")


class Performer:
    """Notes what it was asked for; "bad" ones raise, and `hold` keeps all of them until it is set."""

    def __init__(self) -> None:
        self.performed: list[str] = []
        self.finished: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self._changed = threading.Condition()

    def perform(self, intent_id: str, holder: str) -> Outcome:
        with self._changed:
            self.performed.append(intent_id)
            self._changed.notify_all()
        self.hold.wait(10.0)
        if intent_id.startswith("bad"):
            raise StoreError("the service is away")
        if intent_id.startswith("broken"):
            raise RuntimeError("a bug")
        self.finished.append(intent_id)
        return Done()

    async def until(self, reached: Callable[[], bool]) -> None:
        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(reached, 10.0)

        assert await asyncio.to_thread(wait), self.performed


@pytest.fixture
def broker() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-queue-", dir="/tmp"))
    with RedisServer(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture
async def publisher(broker: RedisServer) -> AsyncIterator[CeleryQueue]:
    async with CeleryQueue(celery_app(broker.url, QUEUE)) as queue:
        yield queue


def runner(broker: RedisServer, performer: Performer, threads: int = 4) -> CeleryRunner:
    app = celery_app(broker.url, QUEUE, consumer=True)
    register(app, performer, "w1", WorkerMetrics(CollectorRegistry()))
    return CeleryRunner(app, threads=threads)


async def test_what_is_published_is_performed_urgent_ones_first(broker: RedisServer, publisher: CeleryQueue) -> None:
    performer = Performer()
    for intent_id, priority in (("late", 9), ("soon", 5), ("now", 0), ("also-now", 0)):
        await publisher.enqueue(intent_id, priority=priority)
    async with runner(broker, performer, threads=1):
        await performer.until(lambda: len(performer.performed) == 4)
    assert performer.performed == ["now", "also-now", "soon", "late"]


async def test_what_a_task_raises_ends_neither_worker_nor_queue(broker: RedisServer, publisher: CeleryQueue) -> None:
    performer = Performer()
    async with runner(broker, performer):
        for intent_id in ("bad", "broken", "good"):
            await publisher.enqueue(intent_id)
        await performer.until(lambda: "good" in performer.performed)
    assert performer.finished == ["good"]


async def test_a_redis_that_comes_back_empty_is_found_again(broker: RedisServer, publisher: CeleryQueue) -> None:
    performer = Performer()
    async with runner(broker, performer):
        await publisher.enqueue("before")
        await performer.until(lambda: "before" in performer.performed)
        broker.kill()
        broker.start()
        started = time.monotonic()
        while True:
            try:
                await publisher.enqueue("after")
                break
            except Unavailable as refusal:
                await asyncio.sleep(refusal.retry_after_s or 0.0)
        await performer.until(lambda: "after" in performer.performed)
        assert time.monotonic() - started < 4.0


async def test_stopping_finishes_what_runs_and_gives_the_rest_back(broker: RedisServer, publisher: CeleryQueue) -> None:
    first, second = Performer(), Performer()
    first.hold.clear()
    async with runner(broker, first, threads=1) as running:
        for number in range(4):
            await publisher.enqueue(f"i{number}")
        await first.until(lambda: len(first.performed) == 1)
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0.1)  # it must still wait for the task
        assert not stopping.done()
        first.hold.set()
        await stopping
    async with runner(broker, second):
        await second.until(lambda: len({*first.finished, *second.performed}) == 4)
    assert first.finished[0] == "i0"
