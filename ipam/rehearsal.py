"""What each mark would have done for a node's pods: a ladder of imagined pools that live through its starts.

Each imagined pool keeps another number of addresses free, by the rules that the real one is kept by: what is missing
is fetched after `coalesce_s`, or at once when few are left, and arrives a time to address later; what has been too much
for `release_delay_s` is given back. A pod that finds none free there counts as missed. So the least mark that would
have done is read off, whatever made it so: how many pods start together, how fast, how long a call takes, what returns.

Pools are imagined up to the first one that missed nothing: those above it would not have, either. What was missed
weighs half as much after three hours. Counts of addresses; seconds of one clock that goes forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

HALF_LIFE_S = 10800.0
MOST_HALVINGS = 900.0  # of a weight, so that it stays a number
PATIENCE = 4.0  # as in review.py, for an excess that is small
LITTLE = 5
LAST = 0.1  # of a miss: a pod that takes the last address, so that a rare miss is seen coming
NOTHING = 1e-5  # the part of pods that is as good as none
ONE_BY_ONE = 16  # marks are tried one by one up to here, and further up by a fifth more each


@dataclass(frozen=True, slots=True)
class Rules:
    """By which pools are kept, real and imagined ones; see ipam.config.IpamConfig.

    :ivar above: the configured `max_above_watermark`.
    """

    coalesce_s: float = 30.0
    urgent_fraction: float = 0.75
    release_delay_s: float = 180.0
    above: int = 0

    def slack(self, mark: int) -> int:
        """Addresses that a call brings beyond the mark, and that are no excess: more of them for a small mark, where
        pods that come and go one by one would make a call each."""
        return max(LITTLE - mark, 2 if mark <= LITTLE else 1, self.above)


PLAIN: Final = Rules()


class Imagined:
    """A pool with one mark.

    :ivar missed: pods that found no address, by weight; `missed_now`: those since it was last set to 0.
    """

    __slots__ = ("_coming", "_coming_at", "_due_at", "_free", "_least_over", "_over_since", "_slack", "_urgent", "mark",
                 "missed", "missed_now")  # fmt: skip

    def __init__(self, mark: int, rules: Rules) -> None:
        self.mark = mark
        self.missed = 0.0
        self.missed_now = 0.0
        self._slack = rules.slack(mark)
        self._urgent = mark * rules.urgent_fraction
        self._free = mark  # below 0: so many pods wait
        self._coming = 0
        self._coming_at = math.inf  # addresses that were asked for
        self._due_at = math.inf  # a deficit that waits for more
        self._over_since = math.inf  # an excess, and the least that it was since
        self._least_over = 0

    def higher(self, mark: int, rules: Rules) -> Imagined:
        """One with a higher mark that was in step up to now."""
        pool = Imagined(mark, rules)
        pool._free = self._free + mark - self.mark
        pool._coming, pool._coming_at, pool._due_at = self._coming, self._coming_at, self._due_at
        return pool

    def live(self, now: float, starts: int, returns: int, more: int, reach_s: float, rules: Rules) -> None:
        """Up to `now`, when pods start and addresses come back.

        :param more: pods that are expected to follow at once.
        """
        mark = self.mark
        while True:
            if self._coming_at <= now:
                self._free += self._coming
                if self._free < mark:
                    self._due_at = self._coming_at + (0.0 if self._free < self._urgent else rules.coalesce_s)
                self._coming_at = math.inf
            elif self._due_at <= now:
                self._ask(self._due_at, mark, reach_s)
            else:
                break
        if self._over_since < now:
            small = self._free - mark - self._slack <= self._urgent
            if self._over_since + rules.release_delay_s * (PATIENCE if small else 1.0) <= now:
                self._free -= self._least_over
                self._over_since = math.inf
        self._free = free = self._free + returns - starts
        if free < mark:
            self._over_since = math.inf
            if self._coming_at == math.inf:
                if free < self._urgent or free < more * rules.urgent_fraction:
                    self._ask(now, max(mark, more), reach_s)
                elif self._due_at == math.inf:
                    self._due_at = now + rules.coalesce_s
            return
        self._due_at = math.inf
        over = free - mark - self._slack
        if over <= 0:
            self._over_since = math.inf
        elif self._over_since == math.inf:
            self._over_since, self._least_over = now, over
        elif over < self._least_over:
            self._least_over = over

    def misses(self, starts: int) -> float:
        """Of the pods that started last."""
        free = self._free
        if free > 0 or not starts:
            return 0.0
        return min(starts, -free) if free else LAST

    def _ask(self, at: float, mark: int, reach_s: float) -> None:
        self._coming = max(mark + self._slack - max(self._free, 0), -self._free)
        self._coming_at = at + reach_s
        self._due_at = math.inf


class Rehearsal:
    """Of one node.

    :ivar most: the last mark that is tried.
    """

    __slots__ = ("_pods", "_pods_now", "_pools", "_rules", "_weighed_from_s", "most")

    def __init__(self, most: int, rules: Rules) -> None:
        self.most = most
        self._rules = rules
        self._pools = [Imagined(1, rules)]
        self._pods = 0.0
        self._pods_now = 0
        self._weighed_from_s = 0.0

    def live(self, now: float, starts: int, returns: int, more: int, reach_s: float, *, counts: bool) -> None:
        """:param counts: whether these pods say anything of later ones."""
        rules, pools = self._rules, self._pools
        for pool in pools:
            pool.live(now, starts, returns, more, reach_s, rules)
        if not starts or not counts:
            return
        weight = self._weight(now)
        self._pods += starts * weight
        self._pods_now += starts
        for pool in pools:
            missed = pool.misses(starts)
            if not missed:
                continue
            pool.missed += missed * weight
            pool.missed_now += missed
            if pool is pools[-1] and pool.mark < self.most:  # is looked at next
                step = pool.mark // 5 if pool.mark >= ONE_BY_ONE else 1
                pools.append(pool.higher(min(pool.mark + step, self.most), rules))

    def __len__(self) -> int:
        return len(self._pools)

    def enough(self, miss: float) -> int:
        """The least mark with which no more than this part of the pods would have been missed."""
        allowed = miss * self._pods
        return next((pool.mark for pool in self._pools if pool.missed <= allowed), self._pools[-1].mark)

    def enough_now(self, miss: float) -> int:
        """The same of the pods since the last call of this; 0 if there were none."""
        pods, pools = self._pods_now, self._pools
        if not pods:
            return 0
        found = next((pool.mark for pool in pools if pool.missed_now <= miss * pods), pools[-1].mark)
        while len(pools) > 1 and pools[-2].missed <= NOTHING * self._pods:
            pools.pop()
        self._pods_now = 0
        for pool in pools:
            pool.missed_now = 0.0
        return found

    def _weight(self, now: float) -> float:
        """Of a pod that starts: it doubles each half-life, for only how they compare counts."""
        halvings = (now - self._weighed_from_s) / HALF_LIFE_S
        if halvings > MOST_HALVINGS:  # soon it would be no number any more
            shrunk = math.pow(2.0, -halvings)
            self._pods *= shrunk
            for pool in self._pools:
                pool.missed *= shrunk
            self._weighed_from_s, halvings = now, 0.0
        return math.pow(2.0, halvings)
