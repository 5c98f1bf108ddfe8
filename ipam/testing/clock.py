"""Time that a test owns."""

from __future__ import annotations


class FakeClock:
    """`advance` passes time for both clocks; `jump` moves the wall clock alone, as an operator or NTP does."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        self._now += seconds
