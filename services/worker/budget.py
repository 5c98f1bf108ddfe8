"""The account's allowance of cloud calls, shared by all workers through Redis.

A waiter asks, is told when to come back, sleeps, and asks again; between two questions only its place in the line is
kept, and that lapses by itself when its process dies. While Redis is away each worker goes on alone with a small part
of the allowance, and returns to the shared bucket as soon as Redis answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import redis
import structlog

from ipam.errors import Throttled
from ipam.model import OperationClass
from ipam.ports import BUDGET, Standing
from services.worker.buckets import LONGEST_SLEEP_S, Bucket, BudgetLimits, LocalBucket, Place, RedisBucket, Verdict

log = structlog.get_logger(__name__)

FALLBACK_SHARE: Final = 0.2
_PROBE_INTERVAL_S: Final = 1.0
_GROWTH_INTERVAL_S: Final = 0.5


class BudgetObserver(Protocol):
    """Told what the budget does, for metrics."""

    def waited(self, operation_class: OperationClass, seconds: float, *, granted: bool) -> None: ...

    def cut(self, operation_class: OperationClass) -> None: ...

    def seen(self, operation_class: OperationClass, verdict: Verdict, *, shared: bool) -> None: ...


class RedisBudget:
    """Implements ipam.ports.Budget.

    :param client: a Redis client with short socket time-outs, see `connect`.
    :param name: what the allowance belongs to: "aws:<account>:<region>".
    :param fallback_share: part of the limits that this process takes while Redis is away; one over the number of
        workers keeps them all within the account's limit.
    """

    def __init__(
        self,
        client: redis.Redis,
        name: str,
        limits: BudgetLimits,
        *,
        fallback_share: float = FALLBACK_SHARE,
        observer: BudgetObserver | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._shared: Bucket = RedisBucket(client, name, limits)
        self._alone: Bucket = LocalBucket(limits.share(fallback_share), monotonic=monotonic)
        self._observer = observer
        self._monotonic = monotonic
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._away = False
        self._probe_at = 0.0
        self._rates: dict[OperationClass, float] = {}
        self._grown_at: dict[OperationClass, float] = {}

    @property
    def alone(self) -> bool:
        """True while Redis is away."""
        return self._away

    def acquire(self, operation_class: OperationClass, *, standing: Callable[[], Standing], deadline_s: float) -> float:
        """See ipam.ports.Budget. Also raises Throttled when the worker stops meanwhile."""
        place = Place(operation_class, standing().rank)
        started = self._monotonic()
        while True:
            verdict, bucket = self._ask(lambda bucket, place=place: bucket.attempt(place))  # type: ignore[misc]
            waited_s = self._monotonic() - started
            self._seen(operation_class, verdict, bucket)
            if verdict.granted:
                if bucket is self._shared:
                    self._alone.leave(place)
                self._waited(operation_class, waited_s, granted=True)
                return waited_s
            if waited_s + verdict.wait_s > deadline_s or self._stopped.is_set():
                self._leave(place)
                self._waited(operation_class, waited_s, granted=False)
                raise self._refusal(operation_class, verdict, deadline_s)
            self._stopped.wait(min(verdict.wait_s, LONGEST_SLEEP_S, deadline_s - waited_s))
            place = self._moved(place, standing)

    def _moved(self, place: Place, standing: Callable[[], Standing]) -> Place:
        """The waiter's place by what it stands for by now: one of another rank begins at the end of its like."""
        try:
            rank = standing().rank
        except BaseException:
            self._leave(place)
            raise
        if rank == place.rank:
            return place
        self._leave(place)
        return Place(place.operation_class, rank)

    def throttled(self, operation_class: OperationClass) -> None:
        verdict, bucket = self._ask(lambda bucket: bucket.throttled(operation_class))
        self._seen(operation_class, verdict, bucket)
        if verdict.cut:
            log.warning("the cloud throttles", operation_class=str(operation_class), rate_per_s=verdict.rate_per_s)
            if self._observer is not None:
                self._observer.cut(operation_class)

    def succeeded(self, operation_class: OperationClass) -> None:
        # At full rate there is nothing to grow, and growth counts seconds, not calls: few calls need to tell Redis.
        now = self._monotonic()
        with self._lock:
            ceiling = self._limits.of(operation_class).per_s
            full = not self._away and self._rates.get(operation_class, 0.0) > 0.9999 * ceiling
            if full or now - self._grown_at.get(operation_class, float("-inf")) < _GROWTH_INTERVAL_S:
                return
            self._grown_at[operation_class] = now
        verdict, bucket = self._ask(lambda bucket: bucket.succeeded(operation_class))
        self._seen(operation_class, verdict, bucket)

    def stop(self) -> None:
        """Wakes all waiters; each raises Throttled. For an orderly end of the worker."""
        self._stopped.set()

    def _ask(self, question: Callable[[Bucket], Verdict]) -> tuple[Verdict, Bucket]:
        if self._may_ask_redis():
            try:
                verdict = question(self._shared)
            except redis.RedisError as error:
                self._lost(error)
            else:
                self._found()
                return verdict, self._shared
        return question(self._alone), self._alone

    def _may_ask_redis(self) -> bool:
        if not self._away:
            return True
        with self._lock:
            now = self._monotonic()
            if now < self._probe_at:
                return False
            self._probe_at = now + _PROBE_INTERVAL_S
            return True

    def _lost(self, error: redis.RedisError) -> None:
        with self._lock:
            first, self._away = not self._away, True
            self._probe_at = self._monotonic() + _PROBE_INTERVAL_S
        if first:
            log.warning("the shared budget is away; going on with a small one of this process", reason=str(error))

    def _found(self) -> None:
        if self._away:
            with self._lock:
                self._away = False
            log.info("the shared budget is back")

    def _leave(self, place: Place) -> None:
        self._alone.leave(place)
        if not self._away:
            try:
                self._shared.leave(place)
            except redis.RedisError as error:
                self._lost(error)

    def _refusal(self, operation_class: OperationClass, verdict: Verdict, deadline_s: float) -> Throttled:
        if self._stopped.is_set():
            return Throttled("the worker is stopping", operation=BUDGET, retry_after_s=0.0)
        ahead = verdict.waiting_mutate if operation_class is OperationClass.MUTATE else verdict.waiting_read
        return Throttled(
            f"no call of class {operation_class} is free within {deadline_s:g} s: {ahead} wait, "
            f"{verdict.rate_per_s:g} calls/s are allowed",
            operation=BUDGET,
            remedy="wait, or raise the budget of the worker if the account's quota allows",
            retry_after_s=verdict.wait_s,
        )

    def _waited(self, operation_class: OperationClass, seconds: float, *, granted: bool) -> None:
        if self._observer is not None:
            self._observer.waited(operation_class, seconds, granted=granted)

    def _seen(self, operation_class: OperationClass, verdict: Verdict, bucket: Bucket) -> None:
        shared = bucket is self._shared
        if shared:
            with self._lock:
                self._rates[operation_class] = verdict.rate_per_s
        if self._observer is not None:
            self._observer.seen(operation_class, verdict, shared=shared)


def connect(url: str, *, connections: int = 32) -> redis.Redis:
    """A client for the budget: a Redis that hangs is given up after half a second."""
    pool = redis.BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=2.0, socket_timeout=0.5, socket_connect_timeout=0.5
    )
    return redis.Redis(connection_pool=pool)


__all__ = ["FALLBACK_SHARE", "BudgetObserver", "RedisBudget", "connect"]
