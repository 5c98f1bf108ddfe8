"""Where the tokens of a cloud budget lie: in Redis, shared by all workers, or in this process while Redis is away.

Both follow the same rules, written out in budget.lua: a rate per class that follows the cloud's throttling, a total
that mutations draw from first, and one line per class: what pods wait for goes first, then nodes already begun.
"""

from __future__ import annotations

import bisect
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Protocol

import redis

from ipam.model import OperationClass

_CLASSES: Final = (OperationClass.MUTATE, OperationClass.READ)
_RANK: Final = 1 << 50
_FLOOR_SHARE: Final = 0.05
LONGEST_SLEEP_S: Final = 2.0

Verb = Literal["acquire", "leave", "throttled", "succeeded"]


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` calls per second, `burst` of them at once after a pause."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What one account and region allows.

    :param total: shared by both classes; mutations draw from it first.
    :param cut_factor: what the rate is multiplied by when the cloud throttles.
    :param cut_interval_s: least time between two cuts: one burst of refusals is one event.
    :param growth_share: part of the ceiling that the rate regains in a second of calls that succeed.
    """

    mutate: Rate
    read: Rate
    total: Rate
    cut_factor: float = 0.5
    cut_interval_s: float = 2.0
    growth_share: float = 0.02

    def of(self, operation_class: OperationClass) -> Rate:
        return self.mutate if operation_class is OperationClass.MUTATE else self.read

    def share(self, part: float) -> BudgetLimits:
        """`part` of the rates, one call at a time."""
        mutate, read, total = (Rate(rate.per_s * part, 1.0) for rate in (self.mutate, self.read, self.total))
        return replace(self, mutate=mutate, read=read, total=total)


@dataclass(slots=True)
class Place:
    """A waiter's place in the line, by `rank` (0 is first) and arrival. `score` comes with the first attempt and keeps
    it should the place lapse."""

    operation_class: OperationClass
    rank: int
    ticket: str = field(default_factory=lambda: uuid.uuid4().hex)
    score: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An attempt's answer. `at_s` is the bucket's own clock, `wait_s` when to come back."""

    granted: bool
    wait_s: float
    score: int
    rate_per_s: float
    waiting_mutate: int
    waiting_read: int
    at_s: float
    cut: bool = False


class Bucket(Protocol):
    """Thread-safe."""

    def attempt(self, place: Place) -> Verdict: ...

    def leave(self, place: Place) -> None: ...

    def throttled(self, operation_class: OperationClass) -> Verdict: ...

    def succeeded(self, operation_class: OperationClass) -> Verdict: ...


class RedisBucket:
    """The tokens of all workers, in Redis. Every method raises redis.RedisError when Redis is away."""

    def __init__(self, client: redis.Redis, name: str, limits: BudgetLimits) -> None:
        self._script = client.register_script((Path(__file__).parent / "budget.lua").read_text())
        self._keys = [f"budget:{{{name}}}:{part}" for part in ("state", "mutate", "read", "lapse")]
        self._known = {each: limits.of(each).per_s for each in _CLASSES}
        rates = (limits.mutate, limits.read, limits.total)
        self._limits: list[str | float] = [number for rate in rates for number in (rate.per_s, rate.burst)]
        self._limits += [limits.cut_factor, limits.cut_interval_s, limits.growth_share]

    def attempt(self, place: Place) -> Verdict:
        verdict = self._run("acquire", place.operation_class, place)
        place.score = verdict.score
        return verdict

    def leave(self, place: Place) -> None:
        self._run("leave", place.operation_class, place)

    def throttled(self, operation_class: OperationClass) -> Verdict:
        return self._run("throttled", operation_class)

    def succeeded(self, operation_class: OperationClass) -> Verdict:
        return self._run("succeeded", operation_class)

    def _run(self, verb: Verb, operation_class: OperationClass, place: Place | None = None) -> Verdict:
        who: list[str | int] = ["", "", 0]
        if place is not None:
            who = [place.ticket, "" if place.score is None else place.score, place.rank]
        known = [self._known[each] for each in _CLASSES]
        answer = self._script(keys=self._keys, args=[verb, str(operation_class), *self._limits, *who, *known])
        granted, wait_s, score, rate, mutations, reads, at_s, cut = answer
        self._known[operation_class] = float(rate)
        return Verdict(
            granted=granted == b"1",
            wait_s=float(wait_s),
            score=int(score),
            rate_per_s=float(rate),
            waiting_mutate=int(mutations),
            waiting_read=int(reads),
            at_s=float(at_s),
            cut=cut == b"1",
        )


@dataclass(slots=True)
class _Tokens:
    rate_per_s: float
    burst: float
    left: float = 0.0
    cut_at_s: float = float("-inf")
    grown_at_s: float | None = None


class LocalBucket:
    """The tokens of one process, while Redis is away. No place lapses here: its owner lives in this process."""

    def __init__(self, limits: BudgetLimits, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._at_s = monotonic()
        self._sequence = 0
        self._tokens = {each: _Tokens(limits.of(each).per_s, limits.of(each).burst) for each in _CLASSES}
        self._total = _Tokens(limits.total.per_s, limits.total.burst)
        self._lines: dict[OperationClass, list[tuple[int, str]]] = {each: [] for each in _CLASSES}

    def attempt(self, place: Place) -> Verdict:
        with self._lock:
            self._flow()
            line, tokens = self._lines[place.operation_class], self._tokens[place.operation_class]
            mine = self._rank(place)
            before = bisect.bisect_left(line, mine)
            aside = self._set_aside() if place.operation_class is OperationClass.READ else 0.0
            lack = before + 1 - tokens.left
            lack_total = before + 1 + aside - self._total.left
            here = before < len(line) and line[before] == mine
            if lack < 1e-6 and lack_total < 1e-6:
                tokens.left -= 1
                self._total.left -= 1
                if here:
                    del line[before]
                return self._verdict(place.operation_class, granted=True)
            if not here:
                line.insert(before, mine)
            wait_s = max(lack / tokens.rate_per_s, lack_total / self._total.rate_per_s, 0.001)
            return self._verdict(place.operation_class, wait_s=wait_s, score=mine[0])

    def leave(self, place: Place) -> None:
        with self._lock:
            line = self._lines[place.operation_class]
            line[:] = [each for each in line if each[1] != place.ticket]

    def throttled(self, operation_class: OperationClass) -> Verdict:
        with self._lock:
            self._flow()
            tokens = self._tokens[operation_class]
            cut = self._at_s - tokens.cut_at_s >= self._limits.cut_interval_s
            if cut:
                floor = self._limits.of(operation_class).per_s * _FLOOR_SHARE
                tokens.rate_per_s = max(floor, tokens.rate_per_s * self._limits.cut_factor)
                tokens.left = min(tokens.left, 0.0)
                tokens.cut_at_s = self._at_s
            tokens.grown_at_s = self._at_s
            return self._verdict(operation_class, cut=cut)

    def succeeded(self, operation_class: OperationClass) -> Verdict:
        with self._lock:
            self._flow()
            tokens, ceiling = self._tokens[operation_class], self._limits.of(operation_class).per_s
            since_s = min(2.0, self._at_s - (self._at_s if tokens.grown_at_s is None else tokens.grown_at_s))
            tokens.rate_per_s = min(ceiling, tokens.rate_per_s + since_s * self._limits.growth_share * ceiling)
            tokens.grown_at_s = self._at_s
            return self._verdict(operation_class)

    def _rank(self, place: Place) -> tuple[int, str]:
        # Redis' scores mean nothing here, and the ticket tells whether the place was taken in this bucket.
        for known in self._lines[place.operation_class]:
            if known[1] == place.ticket:
                return known
        self._sequence += 1
        return (self._sequence + place.rank * _RANK, place.ticket)

    def _flow(self) -> None:
        now_s = self._monotonic()
        for tokens in (*self._tokens.values(), self._total):
            tokens.left = min(tokens.burst, tokens.left + (now_s - self._at_s) * tokens.rate_per_s)
        self._at_s = now_s

    def _set_aside(self) -> float:
        """Tokens of the total that waiting mutations need, beyond what will have flowed in by their turn."""
        waiting, tokens = len(self._lines[OperationClass.MUTATE]), self._tokens[OperationClass.MUTATE]
        ready = min(waiting, max(0, int(tokens.left)))
        aside = float(ready)
        for place in (ready + 1, waiting):
            if ready < place <= waiting:
                turn_s = max(0.0, place - tokens.left) / tokens.rate_per_s
                aside = max(aside, place - turn_s * self._total.rate_per_s)
        return aside

    def _verdict(
        self,
        operation_class: OperationClass,
        *,
        granted: bool = False,
        wait_s: float = 0.0,
        score: int = 0,
        cut: bool = False,
    ) -> Verdict:
        mutations, reads = (len(self._lines[each]) for each in _CLASSES)
        rate_per_s = self._tokens[operation_class].rate_per_s
        return Verdict(granted, wait_s, score, rate_per_s, mutations, reads, self._at_s, cut)


__all__ = ["LONGEST_SLEEP_S", "Bucket", "BudgetLimits", "LocalBucket", "Place", "Rate", "RedisBucket", "Verdict"]
