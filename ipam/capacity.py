"""When a subnet runs out of addresses: the trend of its free counts over resyncs.

A straight line through the counts, where older ones weigh less: what was taken during the last hours says more of the
next ones than last week does. Too few counts, or a trend that does not fall, make no forecast.

Pure but for the sums it keeps: no clock, no randomness. Times are seconds of a clock that does not go backwards; a
count that is not later than the one before is ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HALF_LIFE_S = 2 * 3600.0
LEAST_COUNTS = 3
LEAST_SPAN_S = 600.0


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """
    :ivar free: addresses at the last count.
    :ivar taken_per_hour: addresses that go each hour, on balance; negative: they come back. 0 while not yet known.
    :ivar in_s: seconds from the last count until none is left; infinity: not in sight.
    """

    free: int
    taken_per_hour: float
    in_s: float


class FreeTrend:
    """Of one subnet. Keeps a few sums, however many counts it has seen."""

    __slots__ = ("_at_s", "_cross", "_free", "_seen", "_since_s", "_square", "_time", "_value", "_weight")

    def __init__(self) -> None:
        self._seen = 0
        self._since_s = 0.0
        self._at_s = -math.inf
        self._free = 0
        # Decayed sums of weights, times and counts; times are relative to the last count, so that they stay small.
        self._weight = self._time = self._value = self._square = self._cross = 0.0

    def observe(self, now_s: float, free: int) -> None:
        """A listing of the subnet said that `free` addresses are left."""
        if now_s <= self._at_s:
            return
        if self._seen:
            self._age(now_s - self._at_s)
        else:
            self._since_s = now_s
        self._seen += 1
        self._at_s, self._free = now_s, free
        self._weight += 1.0
        self._value += free

    def exhaustion(self) -> Exhaustion:
        """What the counts so far say."""
        if self._seen and self._free <= 0:
            return Exhaustion(self._free, self._taken_per_s() * 3600.0, 0.0)
        taken = self._taken_per_s()
        return Exhaustion(self._free, taken * 3600.0, self._free / taken if taken > 0.0 else math.inf)

    def _age(self, passed_s: float) -> None:
        """Moves the origin of time by `passed_s`, then lets every weight decay."""
        self._cross -= passed_s * self._value
        self._square += passed_s * (passed_s * self._weight - 2.0 * self._time)
        self._time -= passed_s * self._weight
        kept = 2.0 ** (-passed_s / HALF_LIFE_S)
        self._weight *= kept
        self._time *= kept
        self._value *= kept
        self._square *= kept
        self._cross *= kept

    def _taken_per_s(self) -> float:
        if self._seen < LEAST_COUNTS or self._at_s - self._since_s < LEAST_SPAN_S:
            return 0.0
        spread = self._weight * self._square - self._time * self._time
        if spread <= 0.0:
            return 0.0
        slope = (self._weight * self._cross - self._time * self._value) / spread
        return 0.0 if abs(slope) < 1e-9 else -slope  # rounding of equal counts is no trend
