"""How much of its work a service does while its cloud, its account or its operators ask for less. Pure.

    level         still done                                left out
    normal        everything
    no-release    addresses are brought, the cloud is read  releases, deletion of interfaces and of leaks
    no-mutation   the cloud is read                         every call that changes something
    frozen        pods start from what nodes hold           every call

A level is set by hand, for a time or until it is taken back, or by the budget: when the cloud has throttled most calls
of the last minutes, or refuses our credentials each time. The one that does less is in force. The budget goes no
further than no-mutation, for by reading it learns when the cloud has recovered, and it goes back one level at a time.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipam.model import IntentKind, OperationCount

WINDOW_S = 300.0
PERSIST_S = 60.0
RECOVER_S = 300.0
LEAST_CALLS = 20
SHARE_NO_RELEASE = 0.3
SHARE_NO_MUTATION = 0.6
SHARE_WELL = 0.1
DENIALS = 5


class Degradation(enum.IntEnum):
    """In order: each does less than the one before."""

    NORMAL = 0
    NO_RELEASE = 1
    NO_MUTATION = 2
    FROZEN = 3

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")


_FIRST_LEFT_OUT = {
    IntentKind.RELEASE: Degradation.NO_RELEASE,
    IntentKind.RELEASE_INTERFACE: Degradation.NO_RELEASE,
    IntentKind.COLLECT: Degradation.NO_RELEASE,
    IntentKind.ALLOCATE: Degradation.NO_MUTATION,
    IntentKind.REPAIR: Degradation.NO_MUTATION,
    IntentKind.SYNC_INSTANCE: Degradation.FROZEN,
    IntentKind.RESYNC: Degradation.FROZEN,
}


def allows(level: Degradation, kind: IntentKind) -> bool:
    """Whether intents of the kind are opened and worked at."""
    return level < _FIRST_LEFT_OUT[kind]


@dataclass(frozen=True, slots=True)
class ByHand:
    """What an operator set. `until_at` in seconds since the epoch; 0: without end."""

    level: Degradation = Degradation.NORMAL
    until_at: float = 0.0
    why: str = ""

    def at(self, now: float) -> Degradation:
        return Degradation.NORMAL if 0 < self.until_at <= now else self.level


def by_hand(memo: Mapping[str, object] | None) -> ByHand:
    """What was written down of it; what this release does not know means normal."""
    words = {level.word: level for level in Degradation}
    level = words.get(str(memo.get("level"))) if memo else None
    until_at = memo.get("until_at") if memo else 0.0
    if memo is None or level is None or not isinstance(until_at, int | float):
        return ByHand()
    return ByHand(level, float(until_at), str(memo.get("why", "")))


class ByBudget:
    """What the calls of the last minutes say. Times are monotonic seconds.

    A share of throttled calls must last `PERSIST_S` before it counts; a level is left one step at a time, each after
    `RECOVER_S` without trouble, so that what recovers is not overrun by all that waited.
    """

    def __init__(self) -> None:
        self.level = Degradation.NORMAL
        self.why = ""
        self._heard: deque[list[float]] = deque()  # of each second: its beginning, calls, throttled ones
        self._calls = self._throttled = 0  # of all these
        self._denials = 0
        self._above_since = math.inf
        self._trouble_at = -math.inf

    def hear(self, now: float, operations: Iterable[OperationCount], *, denied: bool) -> None:
        """A worker's report of the calls it made. `denied`: the cloud refused credentials or permissions."""
        counts = list(operations)
        calls, throttled = sum(each.calls for each in counts), sum(each.throttled for each in counts)
        if calls:
            self._count(now, calls, throttled)
        if denied:
            self._denials += 1
        elif sum(each.failed for each in counts) + throttled < calls:
            self._denials = 0
        self.judge(now)

    def _count(self, now: float, calls: int, throttled: int) -> None:
        """Workers of a large fleet report hundreds of times a second: one row a second is kept."""
        if not self._heard or now - self._heard[-1][0] >= 1.0:
            self._heard.append([now, 0, 0])
        self._heard[-1][1] += calls
        self._heard[-1][2] += throttled
        self._calls += calls
        self._throttled += throttled

    def judge(self, now: float) -> bool:
        """Whether the level changed. To be asked from time to time, for silence counts too."""
        while self._heard and now - self._heard[0][0] > WINDOW_S:
            _, calls, throttled = self._heard.popleft()
            self._calls -= int(calls)
            self._throttled -= int(throttled)
        wanted, why = self._wanted(now)
        if wanted > Degradation.NORMAL:
            self._trouble_at = now
        if wanted > self.level:
            self.level, self.why = wanted, why
            return True
        if self.level and wanted < self.level and now - self._trouble_at >= RECOVER_S:
            self.level = Degradation(self.level - 1)
            self.why = f"recovering: {self.why.removeprefix('recovering: ')}" if self.level else ""
            self._trouble_at = now
            self._denials = 0
            return True
        return False

    def _wanted(self, now: float) -> tuple[Degradation, str]:
        if self._denials >= DENIALS:
            return Degradation.NO_MUTATION, f"the cloud refused our credentials {self._denials} times in a row"
        calls, throttled = self._calls, self._throttled
        share = throttled / calls if calls >= LEAST_CALLS else 0.0
        # While a level holds, a share that is not well keeps it: what is left out would come back to be throttled.
        if share < (SHARE_WELL if self.level else SHARE_NO_RELEASE):
            self._above_since = math.inf
            return Degradation.NORMAL, ""
        self._above_since = min(self._above_since, now)
        if now - self._above_since < PERSIST_S or share < SHARE_NO_RELEASE:
            return min(self.level, Degradation.NO_RELEASE), self.why
        said = f"the cloud throttled {throttled} of {calls} calls in {WINDOW_S:.0f} s"
        return (Degradation.NO_MUTATION if share >= SHARE_NO_MUTATION else Degradation.NO_RELEASE), said


@dataclass(slots=True)
class Throttle:
    """Both together, of one service."""

    by_hand: ByHand
    by_budget: ByBudget

    def level(self, now: float) -> Degradation:
        """:param now: wall-clock seconds."""
        return max(self.by_hand.at(now), self.by_budget.level)

    def why(self, now: float) -> str:
        hand = self.by_hand.at(now)
        if not self.level(now):
            return ""
        if hand >= self.by_budget.level:
            return f"by hand{f': {self.by_hand.why}' if self.by_hand.why else ''}"
        return f"by the budget: {self.by_budget.why}"
