"""What a node's next minutes will ask for, from its own starts and stops: marks that follow demand.

Pods that start while an address is being fetched are what `pre_allocate` is for: with as many free addresses as pods
start within the time to an address, none of them waits. Three readings of the past say how many that will be, and the
greatest of them wins:

    bursts   of the starts of the last hours, grouped by the time to an address: so many free addresses that no more
             than one pod in a hundred would have found none. Newer groups weigh more.
    rate     decayed starts a second with their variance, for a node so busy that its groups never end
    hour     what this half-hour of the day, and the next one, asked for on the days before

Stops count where they refill the pool: addresses of pods that stopped one time to an address ago serve the next ones,
so a steady exchange of pods asks for less than growth does. Until the node was watched for a while, its configured
mark stands as the least.

Pure but for the counts it keeps: no clock, no randomness; the same calls give the same marks. Times are seconds of the
wall clock, since people's days are; they must not go backwards, and are clamped if they do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ipam.model import Watermarks

MISS = 0.01  # the part of pods that may find no address waiting
DEVIATIONS = 2.33  # of a normal distribution, to its 99th percentile
QUANTUM_S = 5.0  # starts closer than this are kept as one
HALF_LIFE_S = 3600.0
MEMORY_S = 4 * HALF_LIFE_S
MOST_KEPT = 128
MOST_HORIZONS = 2  # for which groups are kept: time to address, in whole seconds, moves between neighbours
MOST_HALVINGS = 900.0  # of a weight, so that it stays a number
LEARN_S = 1800.0
SLOT_S = 1800.0
DAY_S = 86400.0
DAY_WINDOW_S = 20.0
LOOKAHEAD_S = 300.0
RATE_TIME_S = 600.0
WHY = {
    "bursts": "pods that start within {:.0f} s of each other lately",
    "hour": "this time of the day on the days before",
    "latest": "pods that started within the last {:.0f} s",
}

_Start = tuple[float, int, float]  # when, how many, and how much they weigh


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between what the computed `pre_allocate` stays. Counts of addresses."""

    least: int = 1
    most: int = 32


@dataclass(frozen=True, slots=True)
class Estimate:
    """Computed marks, and in words what made them so."""

    marks: Watermarks
    why: str


@dataclass(slots=True)
class _Slot:
    """One half-hour of the day: the most that 20 s of it asked for today, and on the days before, averaged."""

    day: int
    most: int = 0
    usual: float = 0.0

    def fold(self, day: int) -> None:
        if day > self.day:
            self.usual = (self.usual + self.most) / 2.0 / 2.0 ** min(day - self.day - 1, 60)
            self.day, self.most = day, 0


class _Groups:
    """How much groups of starts weigh, by size, kept as starts come and go. A group begins with a start and takes in
    those of the next `horizon_s`; it weighs what its first start does."""

    __slots__ = ("_begun_s", "_counts", "_horizon_s", "_size", "_weight", "weights")

    def __init__(self, horizon_s: float, starts: Iterable[_Start]) -> None:
        """:param starts: at least one, the oldest first."""
        self._horizon_s = horizon_s
        self._counts: dict[int, int] = {}
        self.weights: dict[int, float] = {}
        begun_s, size, weighs = -math.inf, 0, 0.0
        for at_s, count, weight in starts:
            if at_s - begun_s <= horizon_s:
                size += count
                continue
            if size:
                self._put(size, weighs)
            begun_s, size, weighs = at_s, count, weight
        # of the newest group
        self._begun_s, self._size, self._weight = begun_s, size, weighs
        self._put(size, weighs)

    def add(self, start: _Start) -> None:
        at_s, count, weight = start
        if at_s - self._begun_s <= self._horizon_s:
            self.grow(count)
            return
        self._begun_s, self._size, self._weight = at_s, count, weight
        self._put(count, weight)

    def grow(self, count: int) -> None:
        """More starts in the newest group."""
        self._take(self._size, self._weight)
        self._size += count
        self._put(self._size, self._weight)

    def drop(self, first: _Start, second: _Start) -> bool:
        """The oldest start is forgotten; False if those after it form other groups then."""
        if second[0] - first[0] <= self._horizon_s:
            return False
        self._take(first[1], first[2])
        return True

    def _put(self, size: int, weight: float) -> None:
        self._counts[size] = self._counts.get(size, 0) + 1
        self.weights[size] = self.weights.get(size, 0.0) + weight

    def _take(self, size: int, weight: float) -> None:
        left = self._counts[size] - 1
        if left:
            self._counts[size] = left
            self.weights[size] -= weight
        else:  # nothing, and not what rounding leaves
            del self._counts[size], self.weights[size]


class Forecast:
    """Of one node."""

    __slots__ = (
        "_bounds", "_groups", "_last_s", "_mean", "_memo", "_recent", "_said", "_since_s", "_slots", "_square",
        "_stops", "_usual", "_usual_until_s", "_weighed_from_s",
    )  # fmt: skip

    def __init__(self, bounds: Bounds = Bounds()) -> None:
        self._bounds = bounds
        self._since_s: float | None = None
        self._last_s = -math.inf
        self._recent: deque[_Start] = deque()
        self._groups: dict[float, _Groups] = {}  # by horizon
        self._weighed_from_s = 0.0
        self._slots: dict[int, _Slot] = {}
        self._usual = 0  # what this time of the day asked for on the days before, up to a time
        self._usual_until_s = -math.inf
        self._mean = 0.0  # decayed starts a second
        self._square = 0.0  # decayed sum of squares of simultaneous starts, a second
        self._stops = 0.0  # decayed stops a second
        self._said: tuple[tuple[str, int, float], Watermarks, Estimate] | None = None  # the one before, and of what
        self._memo: dict[float, int] = {}  # marks by horizon, until another start is heard of

    def observe(self, now_s: float, starts: int, stops: int) -> None:
        """Pods that asked for an address, and pods that ended, since the call before. Both may be 0."""
        now_s = self._advance(now_s)
        self._stops += max(stops, 0) / RATE_TIME_S
        if starts <= 0:
            return
        self._memo.clear()
        self._mean += starts / RATE_TIME_S
        self._square += starts * starts / RATE_TIME_S
        if self._recent and now_s - self._recent[-1][0] < QUANTUM_S:
            at_s, count, weight = self._recent[-1]
            self._recent[-1] = (at_s, count + starts, weight)
            for groups in self._groups.values():
                groups.grow(starts)
        else:
            if len(self._recent) == MOST_KEPT:
                self._forget()
            start = (now_s, starts, self._weight(now_s))
            self._recent.append(start)
            for groups in self._groups.values():
                groups.add(start)
        place, day = _slot_of(now_s), _day_of(now_s)
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = _Slot(day)
        slot.fold(day)
        slot.most = max(slot.most, self._within(now_s, DAY_WINDOW_S))

    def marks(self, now_s: float, base: Watermarks, time_to_address_s: float) -> Watermarks:
        """`base` with a `pre_allocate` that follows demand; all its other marks stay.

        :param time_to_address_s: from the moment at which addresses are missed until the node has them.
        """
        return self.estimate(now_s, base, time_to_address_s).marks

    def estimate(self, now_s: float, base: Watermarks, time_to_address_s: float) -> Estimate:
        """The marks with their reason."""
        now_s = self._advance(now_s)
        horizon_s = max(float(math.ceil(time_to_address_s)), QUANTUM_S)
        known = self._memo.get(horizon_s)
        bursts = self._bursts(horizon_s) if known is None else known
        steady = self._steady(horizon_s)
        hour = self._usual if now_s < self._usual_until_s else self._hour(now_s)
        latest = self._within(now_s, horizon_s)
        wanted = max(bursts, steady, hour, latest)
        watched_s = now_s - (self._since_s if self._since_s is not None else now_s)
        if watched_s < LEARN_S and (wanted or self._bounds.least) < base.pre_allocate:
            why = f"watched for {watched_s:.0f} s only: the configured mark stands"
            return self._bounded(base.pre_allocate, base, why)
        if not wanted:
            return self._bounded(self._bounds.least, base, "no pod started lately")
        if wanted == steady and wanted != bursts:
            return self._bounded(wanted, base, f"{60.0 * self._mean:.1f} starts a minute for {horizon_s:.0f} s")
        reading = "bursts" if wanted == bursts else "hour" if wanted == hour else "latest"
        said = self._said
        if said is None or said[0] != (reading, wanted, horizon_s) or said[1] is not base:
            estimate = self._bounded(wanted, base, WHY[reading].format(horizon_s))
            said = self._said = (reading, wanted, horizon_s), base, estimate
        return said[2]

    def _bounded(self, wanted: int, base: Watermarks, why: str) -> Estimate:
        bounded = min(max(wanted, self._bounds.least), self._bounds.most)
        if base.max_allocate:
            bounded = min(bounded, base.max_allocate)
        if bounded != wanted:
            why = f"{wanted} by {why}, bounded to {bounded}"
        return Estimate(Watermarks(bounded, base.min_allocate, base.max_allocate, base.max_above_watermark), why)

    def _advance(self, now_s: float) -> float:
        """Ages the rates to `now_s`; returns it, or the latest time known if that is later."""
        if self._since_s is None:
            self._since_s = self._last_s = now_s
        elif now_s > self._last_s:
            kept = math.exp(-(now_s - self._last_s) / RATE_TIME_S)
            self._mean *= kept
            self._square *= kept
            self._stops *= kept
            self._last_s = now_s
        while self._recent and self._last_s - self._recent[0][0] > MEMORY_S:
            self._forget()
        return self._last_s

    def _forget(self) -> None:
        """The oldest start."""
        recent = self._recent
        first = recent.popleft()
        self._memo.clear()
        self._groups = {
            horizon_s: groups for horizon_s, groups in self._groups.items() if recent and groups.drop(first, recent[0])
        }

    def _weight(self, at_s: float) -> float:
        """Of a start: it doubles each half-life, for only how they compare counts."""
        halvings = (at_s - self._weighed_from_s) / HALF_LIFE_S
        if halvings > MOST_HALVINGS:  # soon it would be no number any more
            self._weighed_from_s, halvings = at_s, 0.0
            self._recent = deque((each[0], each[1], self._weight(each[0])) for each in self._recent)
            self._groups.clear()
        return math.pow(2.0, halvings)

    def _within(self, now_s: float, span_s: float) -> int:
        total = 0
        for at_s, count, _ in reversed(self._recent):
            if now_s - at_s > span_s:
                break
            total += count
        return total

    def _bursts(self, horizon_s: float) -> int:
        """The least mark with which no more than `MISS` of the pods would have waited.

        Ages weigh against each other only, and those grow alike: without another start it stays the same.
        """
        mark = self._memo[horizon_s] = self._burst_mark(horizon_s) if self._recent else 0
        return mark

    def _burst_mark(self, horizon_s: float) -> int:
        groups = self._groups.get(horizon_s)
        if groups is None:
            if len(self._groups) == MOST_HORIZONS:
                del self._groups[next(iter(self._groups))]
            groups = self._groups[horizon_s] = _Groups(horizon_s, self._recent)
        weights = groups.weights
        mark = max(weights)
        if len(weights) == 1:  # then it does not matter how they weigh
            return mark - math.floor(MISS * mark)
        allowed = MISS * sum(size * weight for size, weight in weights.items())
        missed = above = 0.0
        for size in sorted(weights, reverse=True):
            # Between two sizes that occurred, each address fewer lets down one pod of every greater group.
            room = (allowed - missed) / above if above else math.inf
            if room < mark - size:
                return mark - math.floor(room)
            missed += above * (mark - size)
            mark = size
            above += weights[size]
        return mark - math.floor((allowed - missed) / above) if above else 0

    def _steady(self, horizon_s: float) -> int:
        if self._mean * RATE_TIME_S < 10.0:  # a single start would be taken for a stream of them
            return 0
        returned = min(self._stops, self._mean) / 2.0  # half of them cool while they are missed
        expected = (self._mean - returned) * horizon_s
        spread = DEVIATIONS * math.sqrt(self._square * horizon_s)
        return math.ceil(expected + spread) if expected >= 1.0 else 0

    def _hour(self, now_s: float) -> int:
        if now_s >= self._usual_until_s:
            usual, until_s = 0.0, math.inf
            for ahead_s in (0.0, LOOKAHEAD_S):
                at_s = now_s + ahead_s
                until_s = min(until_s, (at_s // SLOT_S + 1.0) * SLOT_S - ahead_s)
                slot = self._slots.get(_slot_of(at_s))
                if slot is not None:
                    slot.fold(_day_of(at_s))
                    usual = max(usual, slot.usual)
            self._usual, self._usual_until_s = round(usual), until_s
        return self._usual


def _slot_of(at_s: float) -> int:
    return int(at_s % DAY_S // SLOT_S)


def _day_of(at_s: float) -> int:
    return int(at_s // DAY_S)
