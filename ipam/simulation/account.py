"""The account's calls in their line: workers take what is most urgent, their budget lets calls through, the cloud
refuses what is beyond its throttle.

The budget follows the rules of services/worker/budget.lua: what pods wait for goes first, then nodes already begun; a
refusal halves the rate, and calls that succeed have it grow again. As in ipam/allocation.py, what a call shall bring is
decided anew at its turn, if that was long in coming.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ipam.calls import OLD_S
from ipam.model import IntentKind, Operation
from ipam.plan import PlannedAssign, PlannedCreate
from ipam.ports import Standing
from ipam.review import URGENT
from ipam.simulation.model import CallRate
from ipam.simulation.nodes import Node, Port

CUT_FACTOR: Final = 0.5
CUT_INTERVAL_S: Final = 2.0
GROWTH_SHARE: Final = 0.02
FLOOR_SHARE: Final = 0.05
_ALMOST: Final = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class Call:
    """`planned`: what it is a part of; `port`: what it is about, once that exists."""

    operation: Operation
    planned: PlannedAssign | PlannedCreate | None = None


@dataclass(slots=True, eq=False)
class Work:
    """An intent on its way.

    :ivar goal: addresses that the node shall have.
    :ivar waiting: no worker has it yet; `ready`: it is in the queue, or was.
    :ivar brought: addresses by interface that the node is told of in the end.
    :ivar made: the interface that is being made.
    :ivar place: rank and serial of its place in the line; None: it has none.
    :ivar decided_at: when its next calls were planned; None once the first of them is made.
    """

    node: Node
    kind: IntentKind
    priority: int
    opened_at: float
    goal: int = 0
    waiting: bool = True
    ready: bool = False
    cancelled: bool = False
    begun: bool = False
    attempts: int = 0
    rounds: int = 0
    calls: deque[Call] = field(default_factory=deque)
    made: Port | None = None
    place: tuple[int, int] | None = None
    decided_at: float | None = None
    brought: list[tuple[Port, list[str]]] = field(default_factory=list)
    refused: str = ""

    @property
    def rank(self) -> int:
        """As ipam.ports.Standing has it."""
        coming = sum(len(addresses) for _, addresses in self.brought)
        return Standing(urgent=self.kind is IntentKind.ALLOCATE and len(self.node.line) > coming, begun=self.begun).rank


class Performer(Protocol):
    """What the account's calls do, and to whom."""

    def decided(self, work: Work) -> bool:
        """Its turn has come after a long wait: whether it still makes a call, which may be another by now."""

    def begin(self, work: Work) -> None:
        """A worker has taken it: it may acquire calls, or end it."""

    def admitted(self, work: Work) -> None:
        """The cloud has taken its next call."""

    def throttled(self, work: Work) -> None:
        """The cloud has refused its next call; the worker has let go of it."""

    def answered(self, work: Work) -> None:
        """Its call has ended."""


class Schedule(Protocol):
    now: float

    def at(self, when: float, act: Callable[[Any], None], what: object) -> None: ...


class Bucket:
    """Tokens that flow in at `rate_per_s`."""

    __slots__ = ("_at", "_burst", "_left", "rate_per_s")

    def __init__(self, rate: CallRate) -> None:
        self.rate_per_s = rate.per_s
        self._burst = rate.burst
        self._left = rate.burst
        self._at = 0.0

    def flow(self, now: float) -> float:
        self._left = min(self._burst, self._left + (now - self._at) * self.rate_per_s)
        self._at = now
        return self._left

    def take(self, now: float) -> bool:
        if self.flow(now) < _ALMOST:
            return False
        self._left -= 1.0
        return True

    def empty(self, now: float) -> None:
        self._left = min(self.flow(now), 0.0)


class Account:
    """:ivar calls: by operation, refused ones included."""

    def __init__(
        self, schedule: Schedule, performer: Performer, *, budget: CallRate, throttle: CallRate, workers: int,
        fifo: bool, seconds: Callable[[Operation], float],
    ) -> None:  # fmt: skip
        self.calls: Counter[str] = Counter()
        self.throttled = 0
        self._schedule = schedule
        self._performer = performer
        self._ceiling = budget.per_s
        self._budget = Bucket(budget)
        self._throttle = Bucket(throttle)
        self._idle = workers
        self._fifo = fifo
        self._seconds = seconds
        self._queue: list[tuple[int, int, Work]] = []
        self._line: list[tuple[tuple[int, int], Work]] = []
        self._serial = 0
        self._pump_at = -1.0
        self._cut_at = float("-inf")
        self._grown_at = 0.0

    def enqueue(self, work: Work, delay_s: float) -> None:
        work.waiting, work.ready = True, False
        self._schedule.at(self._schedule.now + delay_s, self._ready, work)

    def _ready(self, work: Work) -> None:
        work.ready = True
        self._serial += 1
        heapq.heappush(self._queue, (0 if self._fifo else work.priority, self._serial, work))
        self._dispatch()

    def hurry(self, work: Work) -> None:
        """Pods have come to wait for it: what no worker has taken is overtaken by a copy, and what waits for its turn
        gets a better place."""
        if work.place is not None and not self._fifo and work.rank < work.place[0]:
            self._stand(work)
        if work.waiting and work.priority != URGENT:
            work.priority = URGENT
            if work.ready:
                self._ready(work)

    def _dispatch(self) -> None:
        while self._idle and self._queue:
            work = heapq.heappop(self._queue)[2]
            if work.cancelled or not work.waiting:  # a copy of what was hurried
                continue
            self._idle -= 1
            work.waiting = False
            self._performer.begin(work)

    def let_go(self) -> None:
        """A worker has done with what it held."""
        self._idle += 1
        self._dispatch()

    def acquire(self, work: Work) -> None:
        """The work's next call takes its place in the line."""
        self._stand(work)
        self._pump()

    def _stand(self, work: Work) -> None:
        self._serial += 1
        work.place = 0 if self._fifo else work.rank, self._serial
        heapq.heappush(self._line, (work.place, work))

    def _pump(self, _: object = None) -> None:
        now = self._schedule.now
        while self._line:
            place, work = self._line[0]
            if work.place != place:  # it has a better one, or had
                heapq.heappop(self._line)
                continue
            if not self._budget.take(now):
                break
            heapq.heappop(self._line)
            work.place = None
            decided_at, work.decided_at = work.decided_at, None
            late = decided_at is not None and now - decided_at >= OLD_S
            if not (late and not self._fifo) or self._performer.decided(work):
                self._call(work, now)
        if self._line and self._pump_at <= now:
            self._pump_at = now + max(1.0 - self._budget.flow(now), 1e-6) / self._budget.rate_per_s
            self._schedule.at(self._pump_at, self._pump, None)

    def _call(self, work: Work, now: float) -> None:
        operation = work.calls[0].operation
        self.calls[str(operation)] += 1
        if not self._throttle.take(now):
            self.throttled += 1
            if now - self._cut_at >= CUT_INTERVAL_S:
                self._cut_at = now
                self._budget.empty(now)
                self._budget.rate_per_s = max(self._ceiling * FLOOR_SHARE, self._budget.rate_per_s * CUT_FACTOR)
            self._grown_at = now
            self._idle += 1
            self._performer.throttled(work)
            self._schedule.at(now, self._freed, None)
            return
        self._performer.admitted(work)
        self._schedule.at(now + self._seconds(operation), self._answered, work)

    def _freed(self, _: object) -> None:
        self._dispatch()

    def _answered(self, work: Work) -> None:
        now = self._schedule.now
        if self._budget.rate_per_s < self._ceiling:
            self._budget.flow(now)
            grown = min(2.0, now - self._grown_at) * GROWTH_SHARE * self._ceiling
            self._budget.rate_per_s = min(self._ceiling, self._budget.rate_per_s + grown)
        self._grown_at = now
        work.begun = True
        self._performer.answered(work)
