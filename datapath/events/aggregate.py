"""What is alike becomes one line with a count, so that a flood stays readable.

The first of its kind is told at once; what follows within the interval is counted and told at its end. Drops and
denials are alike if they differ in source port only. Should there be more kinds than a reader can take in (a flood from
many addresses), the rest of the interval is counted by hook and reason alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from datapath.events.model import DROPPED, Event

KINDS: Final = 200

# What tells kinds apart: all of `_kind`, or type, hook and reason.
_Key = tuple[int | bytes, ...]
_COARSE: Final = 3


@dataclass(slots=True)
class Line:
    """One or more events.

    :ivar event: the last of them.
    :ivar count: how many there were.
    :ivar suppressed: how many more the programs left out.
    :ivar octets: of those that were counted, by the length of their packets.
    :ivar various: they are of various addresses and ports; those of `event` are an example.
    """

    event: Event
    count: int = 1
    suppressed: int = 0
    octets: int = 0
    various: bool = False


class Aggregator:
    """Of one reader. Times are the events' own: what arrives late is counted where it belongs.

    :param interval_s: how long alike events are counted before they are told.
    :param kinds: how many kinds of events are told apart in an interval.
    """

    def __init__(self, interval_s: float, kinds: int = KINDS) -> None:
        self._interval_s = interval_s
        self._kinds = kinds
        self._ends_at_s: float | None = None
        # Kinds seen in this interval; None: told once, and nothing since.
        self._lines: dict[_Key, Line | None] = {}

    def add(self, events: Iterable[Event], now_s: float) -> Iterator[Line]:
        """Lines to tell now: kinds that are new in this interval, and all that were counted if it is over.

        :param now_s: of any clock that does not jump."""
        yield from self.due(now_s)
        for event in events:
            key: _Key = _kind(event)
            if key not in self._lines:
                if len(self._lines) < self._kinds:
                    self._lines[key] = None
                    yield Line(event, 1, event.suppressed, event.length)
                    continue
                key = (event.type, event.hook, event.reason)
            self._count(key, event)

    def due(self, now_s: float) -> Iterator[Line]:
        """Lines that were counted, if the interval is over; a new one begins."""
        if self._ends_at_s is not None and now_s < self._ends_at_s:
            return
        lines, self._lines = self._lines, {}
        self._ends_at_s = now_s + self._interval_s
        for line in lines.values():
            if line is not None:
                yield line

    def _count(self, key: _Key, event: Event) -> None:
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = Line(event, 1, event.suppressed, event.length, various=len(key) == _COARSE)
            return
        line.event = event
        line.count += 1
        line.suppressed += event.suppressed
        line.octets += event.length


def _kind(event: Event) -> _Key:
    return (
        event.type,
        event.hook,
        event.reason,
        event.verdict,
        event.rule,
        event.protocol,
        event.ifindex,
        event.source,
        event.destination,
        event.destination_port_be,
        # Who is refused tries again from another port; a connection is told apart by it.
        0 if event.outcome == DROPPED else event.source_port_be,
    )
