"""What a reader may see while the cloud is eventually consistent.

A table keeps the present, and of each record that changed within the lag also what it was before. A reader with lag L
at time t is shown every record as it stood at t - L: not there yet, or still there, or in its former state.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_Numbered)


class Table(Generic[R]):
    """Records by id, in the order of their creation.

    :param clock: seconds, growing.
    :param lag_s: how far readers are behind, asked at each use.
    """

    def __init__(self, clock: Callable[[], float], lag_s: Callable[[], float]) -> None:
        self.current: dict[str, R] = {}
        self._clock = clock
        self._lag_s = lag_s
        self._changes: dict[str, list[tuple[float, R | None]]] = {}
        self._expiry: deque[tuple[float, str]] = deque()

    def put(self, record: R) -> None:
        self._remember(record.id, record)
        self.current[record.id] = record

    def remove(self, record_id: str) -> None:
        self._remember(record_id, None)
        del self.current[record_id]

    def seen(self, record_id: str) -> R | None:
        """The record as a reader sees it now."""
        self._forget()
        if record_id in self._changes:
            return self._before(record_id)
        return self.current.get(record_id)

    def readable(self) -> Iterable[R]:
        """All records as a reader sees them now."""
        self._forget()
        if not self._changes:
            return self.current.values()
        present = (record for key, record in self.current.items() if key not in self._changes)
        former = (record for key in self._changes if (record := self._before(key)) is not None)
        return sorted([*present, *former], key=lambda record: record.number)

    def changing(self) -> Iterator[str]:
        """Ids of records that readers may see otherwise than they are."""
        self._forget()
        return iter(self._changes)

    def _before(self, record_id: str) -> R | None:
        horizon = self._clock() - self._lag_s()
        return next(record for at, record in reversed(self._changes[record_id]) if at <= horizon)

    def _remember(self, record_id: str, record: R | None) -> None:
        self._forget()
        if self._lag_s() <= 0:
            return
        now = self._clock()
        before = [(-math.inf, self.current.get(record_id))]
        self._changes.setdefault(record_id, before).append((now, record))
        self._expiry.append((now, record_id))

    def _forget(self) -> None:
        if not self._expiry:
            return
        horizon = self._clock() - self._lag_s()
        while self._expiry and self._expiry[0][0] <= horizon:
            _, record_id = self._expiry.popleft()
            changes = self._changes.get(record_id)
            if changes and changes[-1][0] <= horizon:
                del self._changes[record_id]
