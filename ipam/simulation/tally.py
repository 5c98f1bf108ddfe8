"""What is measured: areas under the counts of addresses, waits of pods, and nothing before measuring begins."""

from __future__ import annotations


class Tally:
    """:ivar held: addresses of all nodes now; `used`: of these with pods."""

    __slots__ = ("_at", "_from_s", "_held_area", "_idle_area", "held", "idle_peak", "pods", "unserved", "used", "waits")

    def __init__(self, from_s: float) -> None:
        self.held = 0
        self.used = 0
        self.pods = 0
        self.unserved = 0
        self.waits: list[float] = []
        self.idle_peak = 0
        self._from_s = from_s
        self._at = from_s
        self._idle_area = 0.0
        self._held_area = 0.0

    def pass_time(self, now: float) -> None:
        """Up to `now` nothing has changed."""
        if now <= self._at:
            return
        idle = self.held - self.used
        self.idle_peak = max(self.idle_peak, idle)
        self._idle_area += idle * (now - self._at)
        self._held_area += self.held * (now - self._at)
        self._at = now

    def served(self, started_s: float, now: float) -> None:
        """A pod that started at `started_s` has its address now."""
        if started_s >= self._from_s:
            self.pods += 1
            if now > started_s:
                self.waits.append(now - started_s)

    def gave_up(self, started_s: float, now: float) -> None:
        """It ended without one."""
        if started_s >= self._from_s:
            self.pods += 1
            self.unserved += 1
            self.waits.append(now - started_s)

    def idle_hours(self) -> float:
        return self._idle_area / 3600.0

    def mean_idle(self) -> float:
        """Over all nodes together."""
        return self._mean(self._idle_area)

    def mean_held(self) -> float:
        return self._mean(self._held_area)

    def _mean(self, area: float) -> float:
        return area / (self._at - self._from_s) if self._at > self._from_s else 0.0
