"""Simulated time: what happens next, and a clock for those who ask what time it is."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class SimulatedTime:
    """Clock and agenda. Midnight (UTC) is 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.agenda: list[tuple[float, int, Callable[[Any], None], object]] = []
        self._serial = 0

    def at(self, when: float, act: Callable[[Any], None], what: object) -> None:
        self._serial += 1
        heapq.heappush(self.agenda, (when, self._serial, act, what))


class SimulatedClock:
    """The same as ipam.ports.Clock."""

    def __init__(self, time: SimulatedTime) -> None:
        self._time = time

    def now(self) -> float:
        return self._time.now

    def monotonic(self) -> float:
        return self._time.now
