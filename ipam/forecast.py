"""What a node's next minutes will ask for, from its own starts and stops: marks that follow demand.

Pods that start while an address is being fetched are what `pre_allocate` is for: with as many free addresses as pods
start until a call has brought more, none of them waits. Three readings of the past say how many that will be, and the
greatest of them wins:

    lately   the least mark with which next to no pod of the last hours would have waited; see rehearsal.py
    hour     the same for this half-hour of the day, and the next one, on the days before
    latest   pods that start together just now: as many are expected as followed in groups that came so far before

Above the mark goes a slack, of some addresses for a small mark and of one for a greater: a call brings so many more.
Until the node was watched for a while, its configured mark stands as the least.

Pure but for the counts it keeps: no clock, no randomness; the same calls give the same marks. Times are seconds of the
wall clock, since people's days are; they must not go backwards, and are clamped if they do.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ipam.model import Watermarks
from ipam.rehearsal import PLAIN, Rehearsal, Rules

MISS = 0.005  # the part of the past's pods that may find no address; of those to come twice as many do
MEMORY_S = 4 * 3600.0  # what was longer ago is forgotten if nothing was since
LEARN_S = 1800.0
SETTLE_S = 300.0  # pods that a node begins with are no demand
GROUP_S = 5.0
GROUP = 3  # pods that are more than chance
MOST_GROUPS = 16
SLOT_S = 1800.0
DAY_S = 86400.0
SLOTS = int(DAY_S // SLOT_S)
LOOKAHEAD_S = 300.0
LEAST_REACH_S = 0.05
WHY = {
    "lately": "what the pods that started lately would have needed",
    "hour": "this time of the day on the days before",
    "latest": "a group of pods that starts just now",
}


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
    """One half-hour of the day: the mark that it asked for today, and on the days before, averaged."""

    day: int
    most: int = 0
    usual: float = 0.0

    def fold(self, day: int) -> None:
        if day > self.day:
            self.usual = (self.usual + self.most) / 2.0 / 2.0 ** min(day - self.day - 1, 60)
            self.day, self.most = day, 0


class Forecast:
    """Of one node."""

    __slots__ = (
        "_bounds", "_group", "_group_s", "_groups", "_last_s", "_lately", "_rehearsal", "_rules", "_said", "_since_s",
        "_slot", "_slots", "_started_s", "_usual", "_usual_until_s",
    )  # fmt: skip

    def __init__(self, bounds: Bounds = Bounds(), rules: Rules = PLAIN) -> None:
        self._bounds = bounds
        self._rules = rules
        self._since_s: float | None = None
        self._last_s = -math.inf
        self._started_s = -math.inf  # when a pod did last
        self._rehearsal = Rehearsal(bounds.most, rules)
        self._lately = 0  # what it says
        self._group_s, self._group = -math.inf, 0  # when the newest group began, and how many pods it has
        self._groups: deque[int] = deque(maxlen=MOST_GROUPS)  # sizes of those before
        self._slot = 0  # the half-hour, since the epoch
        self._slots: dict[int, _Slot] = {}
        self._usual = 0  # what this time of the day asked for on the days before, up to a time
        self._usual_until_s = -math.inf
        self._said: tuple[tuple[str, int], Watermarks, Estimate] | None = None  # the one before, and of what

    def observe(self, now_s: float, starts: int, returns: int, reach_s: float) -> None:
        """Pods that asked for an address, and addresses that have cooled after one, since the call before.

        :param reach_s: the time to an address.
        """
        now_s = self._advance(now_s)
        starts, returns, reach_s = max(starts, 0), max(returns, 0), max(reach_s, LEAST_REACH_S)
        more = 0
        if starts:
            self._started_s = now_s
            self._gather(now_s, starts, reach_s)
            more = self._more(now_s, reach_s)
        elif not returns:
            return
        settled = self._since_s is not None and now_s - self._since_s >= SETTLE_S
        self._rehearsal.live(now_s, starts, returns, more, reach_s, counts=settled)
        if starts:
            self._lately = self._rehearsal.enough(MISS)

    @property
    def bounds(self) -> Bounds:
        return self._bounds

    @bounds.setter
    def bounds(self, bounds: Bounds) -> None:
        self._bounds, self._rehearsal.most, self._said = bounds, bounds.most, None

    @property
    def imagined(self) -> int:
        """How many pools are."""
        return len(self._rehearsal)

    def marks(self, now_s: float, base: Watermarks, reach_s: float) -> Watermarks:
        """`base` with a `pre_allocate` and a `max_above_watermark` that follow demand; its other marks stay.

        :param reach_s: the time to an address.
        """
        return self.estimate(now_s, base, reach_s).marks

    def estimate(self, now_s: float, base: Watermarks, reach_s: float) -> Estimate:
        """The marks with their reason."""
        now_s = self._advance(now_s)
        lately = self._lately if now_s - self._started_s <= MEMORY_S else 0
        hour = self._usual if now_s < self._usual_until_s else self._hour(now_s)
        latest = self._more(now_s, max(reach_s, LEAST_REACH_S))
        wanted = max(lately, hour, latest)
        watched_s = now_s - (self._since_s if self._since_s is not None else now_s)
        if watched_s < LEARN_S and (wanted or self._bounds.least) < base.pre_allocate:
            why = f"watched for {watched_s:.0f} s only: the configured mark stands"
            return self._bounded(base.pre_allocate, base, why, slack=False)
        if not wanted:
            return self._bounded(self._bounds.least, base, "no pod started lately", slack=False)
        reading = "lately" if wanted == lately else "hour" if wanted == hour else "latest"
        said = self._said
        if said is None or said[0] != (reading, wanted) or said[1] is not base:
            estimate = self._bounded(wanted, base, WHY[reading], slack=True)
            said = self._said = (reading, wanted), base, estimate
        return said[2]

    def _bounded(self, wanted: int, base: Watermarks, why: str, *, slack: bool) -> Estimate:
        most = self._bounds.most
        bounded = min(max(wanted, self._bounds.least), most)
        if base.max_allocate:
            bounded = min(bounded, base.max_allocate)
        if bounded != wanted:
            why = f"{wanted} by {why}, bounded to {bounded}"
        above = base.max_above_watermark
        if slack:
            above = max(above, min(self._rules.slack(bounded), most - bounded))
        return Estimate(Watermarks(bounded, base.min_allocate, base.max_allocate, above), why)

    def _advance(self, now_s: float) -> float:
        """Ends the half-hour if it is over. Returns `now_s`, or the latest time known if that is later."""
        if now_s <= self._last_s:
            return self._last_s
        slot = int(now_s // SLOT_S)
        if self._since_s is None:
            self._since_s, self._slot = now_s, slot
        elif slot != self._slot:
            needed = self._rehearsal.enough_now(MISS)
            if needed:
                day, place = divmod(self._slot, SLOTS)
                known = self._slots.setdefault(place, _Slot(day))
                known.fold(day)
                known.most = max(known.most, needed)
            self._slot = slot
        self._last_s = now_s
        return now_s

    def _gather(self, now_s: float, starts: int, reach_s: float) -> None:
        """Starts that go together: those within a time to an address of the first one."""
        if now_s - self._group_s > max(reach_s, GROUP_S):
            if self._group >= GROUP:
                self._groups.append(self._group)
            self._group_s, self._group = now_s, 0
        self._group += starts

    def _more(self, now_s: float, reach_s: float) -> int:
        """Pods that likely follow those of the group under way: as many as followed in half of the groups that came
        so far; as many again if none did."""
        size = self._group
        if size < GROUP or now_s - self._group_s > max(reach_s, GROUP_S):
            return 0
        known = sorted([each for each in self._groups if each >= size])
        return known[len(known) // 2] - size if known else size

    def _hour(self, now_s: float) -> int:
        if now_s >= self._usual_until_s:
            usual, until_s = 0.0, math.inf
            for ahead_s in (0.0, LOOKAHEAD_S):
                at_s = now_s + ahead_s
                until_s = min(until_s, (at_s // SLOT_S + 1.0) * SLOT_S - ahead_s)
                day, place = divmod(int(at_s // SLOT_S), SLOTS)
                slot = self._slots.get(place)
                if slot is not None:
                    slot.fold(day)
                    usual = max(usual, slot.usual)
            self._usual, self._usual_until_s = round(usual), until_s
        return self._usual
