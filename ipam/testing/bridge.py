"""Ways between a PoolService and an Executor without a transport."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from ipam.errors import Throttled, Unavailable
from ipam.model import Claim, Goal, Instance, Inventory, OperationClass, Outcome, Report, Step
from ipam.ports import BUDGET, Clock, Standing
from ipam.service import PoolService
from ipam.testing.clock import FakeClock

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class DirectQueue:
    """Queue in memory. `down` refuses what is enqueued; `lose` forgets it, as a broker that was restarted empty."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or FakeClock()
        self._items: list[tuple[int, float, int, str]] = []
        self._serial = itertools.count()
        self.down = False
        self.enqueued: Counter[str] = Counter()
        self.on_enqueue: Callable[[], None] = lambda: None

    async def enqueue(self, intent_id: str, *, delay_s: float = 0.0, priority: int = 0) -> None:
        if self.down:
            raise Unavailable("the queue is down", remedy="start it")
        self.enqueued[intent_id] += 1
        item = (priority, self._clock.monotonic() + delay_s, next(self._serial), intent_id)
        heapq.heappush(self._items, item)
        self.on_enqueue()

    def take(self) -> str | None:
        """The most urgent of those that are due."""
        now = self._clock.monotonic()
        due = [item for item in self._items if item[1] <= now]
        if not due:
            return None
        item = min(due)
        self._items.remove(item)
        heapq.heapify(self._items)
        return item[3]

    def lose(self) -> None:
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)


class FreeBudget:
    """Budget that allows everything and counts it. With `refuse` no turn ever comes."""

    def __init__(self) -> None:
        self.acquired: Counter[OperationClass] = Counter()
        self.begun = 0
        self.throttles = 0
        self.refuse = False

    def acquire(self, operation_class: OperationClass, *, standing: Callable[[], Standing], deadline_s: float) -> float:
        if self.refuse:
            raise Throttled(f"none within {deadline_s:g} s", operation=BUDGET, retry_after_s=1.0)
        self.acquired[operation_class] += 1
        self.begun += standing().begun
        return 0.0

    def throttled(self, operation_class: OperationClass) -> None:
        self.throttles += 1

    def succeeded(self, operation_class: OperationClass) -> None:
        pass


class LocalJournal:
    """IntentJournal that calls a PoolService in the same process.

    :param run: runs a coroutine of the service to its end and returns its result: `on_loop(loop)` for a worker thread,
        `loop.run_until_complete` where everything happens in one thread.
    """

    def __init__(self, service: PoolService, run: Run) -> None:
        self._service = service
        self._run = run

    def claim(self, intent_id: str, holder: str) -> Claim | None:
        claim: Claim | None = self._run(self._service.claim(intent_id, holder))
        return claim

    def record(
        self, intent_id: str, fence: int, steps: Sequence[Step], instance: Instance | None = None
    ) -> Goal | None:
        goal: Goal | None = self._run(self._service.record(intent_id, fence, steps, instance))
        return goal

    def confirm_release(self, intent_id: str, fence: int, addresses: Sequence[str]) -> Sequence[str]:
        allowed: Sequence[str] = self._run(self._service.confirm_release(intent_id, fence, addresses))
        return allowed

    def complete(self, intent_id: str, fence: int, outcome: Outcome, report: Report) -> None:
        self._run(self._service.complete(intent_id, fence, outcome, report))

    def inventory(self, intent_id: str, fence: int, pages: Iterator[Inventory]) -> None:
        for page in pages:
            self._run(self._service.inventory_page(intent_id, fence, page))


def on_loop(loop: asyncio.AbstractEventLoop) -> Run:
    """Runs coroutines on a loop that runs in another thread."""
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
