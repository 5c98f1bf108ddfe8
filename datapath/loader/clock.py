"""The programs' clock: they measure in jiffies, since reading those is free (a nanosecond clock costs 14-30 ns)."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Final

from datapath.loader import objects
from datapath.loader.programs import Program

_CONTEXT: Final = struct.Struct("=QQ")
_LOW: Final = 0xFFFFFFFF


def tick_rate() -> int:
    """Jiffies per second. The coarse clocks advance once a jiffy, and the kernel says by how much."""
    return round(1 / time.clock_getres(getattr(time, "CLOCK_MONOTONIC_COARSE", 6)))


def signed(difference_j: int) -> int:
    """A difference of two moments whose high bits are missing, between -2^31 and 2^31."""
    return ((difference_j & _LOW) ^ 1 << 31) - (1 << 31)


class Clock:
    """Jiffies as the programs see them; their low 32 bits, which wrap: compare differences. Safe between threads.

    Raises NotLoaded, BpfRefused when made."""

    def __init__(self, path: Path | None = None) -> None:
        self.hz = tick_rate()
        with objects.load(path or objects.find("clock"), pins=None) as loaded:
            program = loaded.programs["read_clock"]
            self._program = Program.by_id(program.id)

    def close(self) -> None:
        self._program.close()

    def read(self) -> tuple[int, int]:
        """(jiffies, 64 bits; CLOCK_MONOTONIC in nanoseconds), read at one moment."""
        done = self._program.test_run(context=bytes(_CONTEXT.size))
        jiffies, time_ns = _CONTEXT.unpack(done.context)
        return jiffies, time_ns

    def now_j(self) -> int:
        """Low 32 bits; takes a few microseconds."""
        return self.read()[0] & _LOW

    def to_seconds(self, duration_j: int) -> float:
        """Of a difference; those above half the range are negative: the moment lies ahead."""
        return signed(duration_j) / self.hz

    def to_jiffies(self, duration_s: float) -> int:
        """At least one for any time at all."""
        return max(1, round(duration_s * self.hz)) if duration_s > 0 else 0

    def age_s(self, moment_j: int) -> float:
        """Seconds since a moment that a program wrote down; negative if it lies ahead."""
        return self.to_seconds(self.now_j() - moment_j)
