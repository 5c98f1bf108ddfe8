"""What follows a change: it is written to the store, and what it owes is handed to the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from ipam.errors import IpamError, StoreError
from ipam.fleet import Fleet
from ipam.ports import PoolStore, Queue
from ipam.review import Parcel

PARALLEL_ENQUEUES = 16

log = logging.getLogger(__name__)


class Writer:
    """Writes a fleet's changes in order, as many as there are at once. One for each term of leadership.

    :param take: takes what is to be told once what was changed so far is durable; returns a function that tells it.

    What fails to be written leaves memory ahead of the store, so the whole term ends: `on_failure` is called once, and
    every waiter gets the error.
    """

    def __init__(
        self,
        store: PoolStore,
        fleet: Fleet,
        leader: int,
        *,
        take: Callable[[], Callable[[], None]],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._leader = leader
        self._take = take
        self._on_failure = on_failure
        self._next: asyncio.Future[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._in_flight: asyncio.Future[None] | None = None
        self.failed: Exception | None = None

    async def commit(self) -> None:
        """Returns when all that was changed before is durable. A caller that is cancelled takes nothing back."""
        if self.failed is not None:
            raise StoreError("the store failed, and this replica starts anew", retry_after_s=1.0) from self.failed
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        waiting = self._next
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(waiting)

    async def _flush(self) -> None:
        try:
            while self._next is not None and self.failed is None:
                self._in_flight, self._next = self._next, None
                tell = self._take()
                try:
                    if self._fleet.dirty:
                        await self._store.apply(self._fleet.take_changes(), leader=self._leader)
                except Exception as error:  # noqa: BLE001 - whatever it is, memory is ahead of the store now
                    self._fail(error)
                    return
                tell()
                if not self._in_flight.done():
                    self._in_flight.set_result(None)
        finally:
            self._flushing = self._in_flight = None

    def _fail(self, error: Exception) -> None:
        self.failed = error
        shown = error if isinstance(error, IpamError) else StoreError(str(error), retry_after_s=1.0)
        for waiting in (self._in_flight, self._next):
            if waiting is not None and not waiting.done():
                waiting.set_exception(shown)
                waiting.exception()  # there may be no waiter left
        self._next = None
        self._on_failure(error)


class Outbox:
    """Hands intents that are durable to the queue, beside all else. What it does not take is told to `on_failure`."""

    def __init__(self, queue: Queue, on_failure: Callable[[Sequence[str]], None]) -> None:
        self._queue = queue
        self._on_failure = on_failure
        self._waiting: list[Parcel] = []
        self._draining: asyncio.Task[None] | None = None

    def send(self, parcels: Sequence[Parcel]) -> None:
        self._waiting += parcels
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())

    def clear(self) -> None:
        self._waiting.clear()

    async def settle(self) -> None:
        while self._draining is not None:
            await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:PARALLEL_ENQUEUES], self._waiting[PARALLEL_ENQUEUES:]
                results = await asyncio.gather(
                    *(asyncio.create_task(self._enqueue(each), context=each.cause) for each in batch),
                    return_exceptions=True,
                )
                failed = [each for each in results if isinstance(each, BaseException)]
                if failed:
                    left = [each.intent_id for each, result in zip(batch, results, strict=True) if result is not None]
                    left += [each.intent_id for each in self._waiting]  # who is away is not asked once for each
                    self._waiting.clear()
                    log.warning("%d intents are left to the sweeper: %s", len(left), failed[0])
                    self._on_failure(left)
        finally:
            self._draining = None

    async def _enqueue(self, parcel: Parcel) -> None:
        await self._queue.enqueue(parcel.intent_id, delay_s=parcel.delay_s, priority=parcel.priority)
