"""The level in force: set by hand, lowered by the budget, and left again; and what follows from a change."""

from __future__ import annotations

import logging

from ipam.degradation import ByHand, Degradation, allows
from ipam.errors import InvalidInput
from ipam.fleet import Fleet
from ipam.ports import Clock
from ipam.review import Reviewer

log = logging.getLogger(__name__)


class Levels:
    """Of one term of leadership. See degradation.py for what each level leaves out."""

    def __init__(self, clock: Clock, fleet: Fleet, reviewer: Reviewer) -> None:
        self._clock = clock
        self._fleet = fleet
        self._reviewer = reviewer
        self._level = fleet.throttle.level(clock.now())

    def set(self, level: Degradation, *, lasts_s: float, why: str) -> None:
        """By hand, for `lasts_s`; 0: until it is set anew. Raises InvalidInput."""
        if lasts_s < 0:
            raise InvalidInput(f"a level lasts {lasts_s:g} s", field="lasts", remedy="use 0 or more")
        until_at = self._clock.now() + lasts_s if lasts_s and level else 0.0
        self._fleet.throttle.by_hand = ByHand(level, until_at, why if level else "")
        self._fleet.remember("level", {"level": level.word, "until_at": until_at, "why": why} if level else None)
        log.warning("level %s was set by hand%s", level.word, f": {why}" if why else "")
        self._follow()

    def tend(self) -> None:
        """Leaves a level whose time is over, and takes up what was left out."""
        throttle = self._fleet.throttle
        throttle.by_budget.judge(self._clock.monotonic())
        if throttle.by_hand.level and not throttle.by_hand.at(self._clock.now()):
            throttle.by_hand = ByHand()
            self._fleet.remember("level", None)
        self._follow()

    def _follow(self) -> None:
        throttle = self._fleet.throttle
        before, self._level = self._level, throttle.level(self._clock.now())
        if self._level == before:
            return
        log.warning("level %s follows %s %s", self._level.word, before.word, throttle.why(self._clock.now()))
        self._reviewer.review_all()
        kinds = {each.intent.kind for each in self._fleet.intents.values()}
        again = {kind for kind in kinds if allows(self._level, kind) and not allows(before, kind)}
        # Workers turned these away, and the sweeper offers what nobody takes ever more seldom.
        self._reviewer.not_taken([id for id, each in self._fleet.intents.items() if each.intent.kind in again])
        self._reviewer.sweep(self._clock.monotonic())
