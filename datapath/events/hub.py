"""One reader of the ring buffer, any number of subscribers.

The reader never waits for anyone: a subscriber has a bounded queue, and what does not fit is lost to it alone and
counted. While nobody subscribes, records are only counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from datapath.events.decode import Record, decode, glance
from datapath.events.filters import Test
from datapath.events.model import Event

QUEUE_EVENTS: Final = 16384
# Events that come within this time are read at once: waking for each costs more than reading it. The ring holds what
# comes meanwhile, up to two million a second.
GATHER_S: Final = 0.01
_AFTER_ERROR_S: Final = 1.0

_log = logging.getLogger(__name__)


class Records(Protocol):
    """The ring buffer: datapath/loader/ringbuf.py.

    :ivar lost: records that found no room since the programs were loaded."""

    @property
    def lost(self) -> int: ...
    def fileno(self) -> int: ...
    def read(self) -> Sequence[Record]:
        """All there is, without waiting. What it returns is good until the next call."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a subscriber gets at once.

    :ivar lost: how many events it lost since it last took some, being too slow.
    """

    events: Sequence[Event]
    lost: int


@dataclass(frozen=True, slots=True)
class HubCounts:
    """Since the start.

    :ivar read: events read from the ring.
    :ivar lost: events that found no room in the ring.
    :ivar suppressed: events that the programs left out, to tell not more than so many of a kind.
    :ivar unknown: records of another release's length.
    :ivar lost_by_subscribers: events that did not fit into a subscriber's queue.
    """

    read: int = 0
    lost: int = 0
    suppressed: int = 0
    unknown: int = 0
    subscribers: int = 0
    lost_by_subscribers: int = 0


class Subscription:
    """A queue of events that pass a test. Thread-safe; leave the `with` block to end it."""

    def __init__(self, hub: EventHub, test: Test, notify: Callable[[], None], capacity: int) -> None:
        self._hub = hub
        self._test = test
        self._notify = notify
        self._capacity = capacity
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._lost = 0
        self.lost = 0

    def take(self, at_most: int = 4096) -> Taken:
        """What has queued up, perhaps nothing. Never waits: `notify` tells when there is something again."""
        with self._lock:
            count = min(at_most, len(self._events))
            events = [self._events.popleft() for _ in range(count)]
            lost, self._lost = self._lost, 0
        return Taken(events, lost)

    @property
    def lost_in_ring(self) -> int:
        """Records that found no room in the ring, for whomever they would have been; since the programs were loaded."""
        return self._hub.lost_in_ring

    def put(self, events: Sequence[Event]) -> None:
        """By the hub only."""
        test = self._test
        wanted = [event for event in events if test(event)]
        if not wanted:
            return
        with self._lock:
            room = self._capacity - len(self._events)
            self._events.extend(wanted[:room] if room < len(wanted) else wanted)
            over = max(0, len(wanted) - room)
            self._lost += over
            self.lost += over
        # May fail if whoever waits has just gone: his subscription ends by itself.
        with contextlib.suppress(RuntimeError):
            self._notify()

    def __enter__(self) -> Self:
        self._hub.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.remove(self)


class EventHub:
    """Enter it to begin reading.

    :param gather_s: how long events may wait in the ring to be read together.
    """

    def __init__(self, records: Records, *, gather_s: float = GATHER_S) -> None:
        self._records = records
        self._gather_s = gather_s
        self._lock = threading.Lock()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._read = self._suppressed = self._unknown = self._lost_by_gone = 0
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def subscribe(
        self, test: Test, notify: Callable[[], None] = lambda: None, *, capacity: int = QUEUE_EVENTS
    ) -> Subscription:
        """Events from the moment that the subscription is entered.

        :param notify: called by the hub's thread when events have come; must return at once.
        :param capacity: events that wait for the subscriber; more are lost to it.
        """
        return Subscription(self, test, notify, capacity)

    def counts(self) -> HubCounts:
        subscriptions = self._subscriptions
        return HubCounts(
            read=self._read,
            lost=self._records.lost,
            suppressed=self._suppressed,
            unknown=self._unknown,
            subscribers=len(subscriptions),
            lost_by_subscribers=self._lost_by_gone + sum(one.lost for one in subscriptions),
        )

    @property
    def lost_in_ring(self) -> int:
        return self._records.lost

    def add(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions += (subscription,)

    def remove(self, subscription: Subscription) -> None:
        with self._lock:
            if subscription in self._subscriptions:
                self._lost_by_gone += subscription.lost
                self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)

    def give(self, events: Sequence[Event]) -> None:
        """Events that no program tells. From any thread."""
        if not events:
            return
        with self._lock:
            self._suppressed += sum(event.suppressed for event in events)
            subscriptions = self._subscriptions
        for subscription in subscriptions:
            subscription.put(events)

    @property
    def heard(self) -> bool:
        """Whether anybody subscribes."""
        return bool(self._subscriptions)

    def read_once(self) -> int:
        """Reads what there is and gives it out; how many records that was. The thread's step, and the tests'."""
        records = self._records.read()
        if not records:
            return 0
        if subscriptions := self._subscriptions:
            events, unknown = decode(records)
            self._suppressed += sum(event.suppressed for event in events)
            for subscription in subscriptions:
                subscription.put(events)
        else:
            count, suppressed = glance(records)
            unknown = len(records) - count
            self._suppressed += suppressed
        self._read += len(records) - unknown
        self._unknown += unknown
        return len(records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)

    def _run(self) -> None:
        with select.epoll() as ready, select.epoll() as stopping:
            stopping.register(self._stop, select.EPOLLIN)
            ready.register(self._stop, select.EPOLLIN)
            ready.register(self._records.fileno(), select.EPOLLIN)
            pause_s = self._gather_s
            while True:
                if any(descriptor == self._stop for descriptor, _ in ready.poll()):
                    return
                try:
                    self.read_once()
                    pause_s = self._gather_s
                except Exception:  # noqa: BLE001  what is wrong with events must not end the daemon
                    _log.exception("events could not be read")
                    pause_s = _AFTER_ERROR_S
                if stopping.poll(pause_s):
                    return
