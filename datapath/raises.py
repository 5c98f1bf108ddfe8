"""When what the programs remember is dropped: many small changes of the cluster cost one raise of the generation.

Each raise has every flow decided anew. What this node itself does (pods, policy, routes) is in force at once: whoever
is answered may rely on it. What the registry tells of others comes in many small pieces, and was on its way for longer
than it waits here; its maps are written at once, so that new flows see it, and flows that are known follow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

APART_S: Final = 0.05


class Raises:
    """Thread-safe. None is ever lost: what waits is raised by the next `now`, by its time, or by `close`.

    :param raise_generation: called for each raise.
    :param apart_s: the least time between a raise and one that `soon` asked for.
    """

    def __init__(self, raise_generation: Callable[[], object], *, apart_s: float = APART_S) -> None:
        self._raise = raise_generation
        self._apart_s = apart_s
        self._lock = threading.Lock()
        self._last_s = -apart_s
        self._timer: threading.Timer | None = None

    def now(self) -> None:
        """Before this returns."""
        with self._lock:
            self._take_place()

    def soon(self) -> None:
        """At once, if there was none for `apart_s`; else when that time is over."""
        with self._lock:
            if self._timer is not None:
                return
            wait_s = self._last_s + self._apart_s - time.monotonic()
            if wait_s <= 0:
                self._take_place()
                return
            self._timer = threading.Timer(wait_s, self._due)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Raises what waits."""
        with self._lock:
            if self._timer is not None:
                self._take_place()

    def _due(self) -> None:
        with self._lock:
            # One that was cancelled a moment too late finds nothing to do.
            if self._timer is threading.current_thread():
                self._take_place()

    def _take_place(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._last_s = time.monotonic()
        self._raise()


__all__ = ["APART_S", "Raises"]
