"""What the state of every fake cloud has: time, chance, faults, numbers, revisions, and what happens later.

Single-threaded: the server's event loop is the only caller. Calls check everything first and change afterwards, so that
a call that fails has changed nothing. What happens later (attached, running) is a transition, due at a time.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable

from lab.fake_cloud.faults import Faults
from lab.fake_cloud.history import R, Table


class BaseCloud:
    """One region of one account.

    :param clock: seconds since the epoch; tests own it.
    :param seed: makes ids and addresses repeat.
    """

    def __init__(
        self, *, account: str, region: str, clock: Callable[[], float] = time.time, seed: int | None = None
    ) -> None:
        self.account = account
        self.region = region
        self.clock = clock
        self.chance = random.Random(seed)
        self.faults = Faults()
        self.revision = 1
        self.on_change: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        self._transitions: list[tuple[float, int, Callable[[], None]]] = []

    def table(self, kind: type[R]) -> Table[R]:
        return Table[R](self.clock, lambda: self.faults.eventual_consistency_s)

    def new_number(self) -> int:
        return next(self._numbers)

    def new_mac(self) -> str:
        number = self.chance.getrandbits(40)
        return "02:" + ":".join(f"{number >> shift & 0xFF:02x}" for shift in (32, 24, 16, 8, 0))

    def changed(self) -> None:
        self.revision += 1
        self.on_change()

    # later

    def later(self, delay_s: float, transition: Callable[[], None]) -> None:
        """Does it after `delay_s`, at once if that is 0."""
        if delay_s <= 0:
            transition()
        else:
            heapq.heappush(self._transitions, (self.clock() + delay_s, self.new_number(), transition))
            self.on_change()

    def settle(self) -> None:
        """Does what is due."""
        while self._transitions and self._transitions[0][0] <= self.clock():
            heapq.heappop(self._transitions)[2]()

    def next_due_at(self) -> float | None:
        return self._transitions[0][0] if self._transitions else None
