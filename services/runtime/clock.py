"""The machine's clocks, as the domains' Clock ports ask for them."""

from __future__ import annotations

import time


class SystemClock:
    """Wall-clock seconds since the epoch, and seconds that never jump."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
