"""Topics: many subscribers follow one keyed state, whatever their speed.

    Topic ──subscribe(position)──▶ Subscription ──Batch…──▶ stream ──▶ Follower ──apply──▶ Mirror (or a kernel)
                                        ▲───────────────── ack ◀──────────┘

A Topic holds the newest value of each key and the order in which keys last changed; it keeps no queue per subscriber.
A subscriber is a cursor into that order. What changed twice since its cursor is sent once, so a slow subscriber costs
nothing, and one whose cursor is older than the remembered deletions gets a snapshot.
Subscribers at the same cursor share one Batch object and its encoded bytes.
"""

from __future__ import annotations

import asyncio
import secrets
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Self, TypeVar

from services.runtime.batch import START, Batch, Position, SubscriberStatus

M = TypeVar("M")


_SHARED_BATCHES: Final = 8
# Stands for the revision of a batch inside an unfinished snapshot.
_PART: Final = -1


class _Gone:
    """Stands for a deleted value."""


_GONE: Final = _Gone()
_NO_ERRORS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class _Entry:
    revision: int
    value: Any


class Topic(Generic[M]):
    """A keyed state that grows by revisions. Belongs to one event loop; no method blocks.

    :param encode: makes the wire message of a batch; needed for `Subscription.encoded` only.
    :param window_s: changes within this time of the last wake-up are sent together.
    :param max_batch: keys in one batch at most.
    :param keep_deletes: deletions remembered for those who resume; beyond, the oldest are forgotten, and who stands
        before them gets a snapshot.
    """

    # A service may have a topic with a subscriber for each of thousands of nodes: what only some need is made late.
    __slots__ = (
        "_deleted", "_encode", "_entries", "_floor", "_keep_deletes", "_log_keys", "_log_revisions", "_max_batch",
        "_revision", "_seal_scheduled", "_sealed", "_sealed_at", "_shared", "_subscriptions", "_window_s", "epoch",
    )  # fmt: skip

    def __init__(
        self,
        encode: Callable[[Batch[M]], bytes] | None = None,
        *,
        window_s: float = 0.005,
        max_batch: int = 1000,
        keep_deletes: int = 10_000,
    ) -> None:
        self.epoch = secrets.token_hex(8)
        self._encode = encode
        self._window_s = window_s
        self._max_batch = max_batch
        self._keep_deletes = keep_deletes
        self._entries: dict[str, _Entry] = {}
        self._deleted = 0
        # The order of changes: parallel, revisions ascending. A pair is stale once the key's entry has moved on.
        self._log_revisions = array("Q")
        self._log_keys: list[str] = []
        self._revision = 0
        # What subscribers may see; trails `_revision` by the window.
        self._sealed = 0
        # Deletions up to here are forgotten.
        self._floor = 0
        self._sealed_at = float("-inf")
        self._seal_scheduled = False
        self._shared: OrderedDict[tuple[int, int, int, int], Batch[M]] | None = None
        self._subscriptions: set[Subscription[M]] = set()

    @property
    def position(self) -> Position:
        """The newest position."""
        return Position(self.epoch, self._revision)

    @property
    def subscribers(self) -> list[SubscriberStatus]:
        return [subscription.status() for subscription in self._subscriptions]

    def __len__(self) -> int:
        return len(self._entries) - self._deleted

    def __contains__(self, key: str) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.value is not _GONE

    def get(self, key: str) -> M | None:
        entry = self._entries.get(key)
        return None if entry is None or entry.value is _GONE else entry.value

    def snapshot(self) -> dict[str, M]:
        """The whole state, a copy of the dictionary and not of its values."""
        return {key: entry.value for key, entry in self._entries.items() if entry.value is not _GONE}

    def publish(self, upserts: Mapping[str, M] | None = None, deletes: Iterable[str] = ()) -> int:
        """Changes the state and returns its revision. Values belong to the topic from now on: do not change them.

        Deleting what does not exist is no change. A key in both is deleted.
        """
        for key, value in (upserts or {}).items():
            self._put(key, value)
        for key in deletes:
            if key in self:
                self._put(key, _GONE)
        if self._revision > self._sealed:
            self._schedule_seal()
        if len(self._log_keys) > 2 * len(self._entries) + 1024 or self._deleted > 2 * self._keep_deletes + 64:
            self._compact()
        return self._revision

    def replace(self, state: Mapping[str, M]) -> int:
        """Makes `state` the whole state; only what differs is a change. Returns the revision."""
        deletes = [key for key in self.snapshot() if key not in state]
        return self.publish({key: value for key, value in state.items() if self.get(key) != value}, deletes)

    def subscribe(
        self, position: Position = START, *, name: str = "", max_unacked: int | None = None
    ) -> Subscription[M]:
        """A subscriber that stands at `position`. Use as an iterator in `async with`, or close it.

        :param max_unacked: batches sent without an acknowledgement at most; None: do not wait for any.
        """
        subscription = Subscription(self, position, name, max_unacked)
        self._subscriptions.add(subscription)
        return subscription

    @property
    def followed(self) -> bool:
        """Whether it has a subscriber."""
        return bool(self._subscriptions)

    def close(self) -> None:
        """Ends all its subscriptions."""
        for subscription in list(self._subscriptions):
            subscription.close()

    def _forget(self, subscription: Subscription[M]) -> None:
        self._subscriptions.discard(subscription)
        if len(self._subscriptions) < 2:
            self._shared = None

    def _put(self, key: str, value: Any) -> None:
        self._revision += 1
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(self._revision, value)
            self._deleted += value is _GONE
        else:
            self._deleted += (value is _GONE) - (entry.value is _GONE)
            entry.revision, entry.value = self._revision, value
        self._log_revisions.append(self._revision)
        self._log_keys.append(key)

    def _schedule_seal(self) -> None:
        if self._seal_scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._seal()
            return
        self._seal_scheduled = True
        loop.call_at(max(loop.time(), self._sealed_at + self._window_s), self._seal, loop)

    def _seal(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._seal_scheduled = False
        self._sealed_at = loop.time() if loop is not None else float("-inf")
        self._sealed = self._revision
        for subscription in self._subscriptions:
            subscription._wake()

    def _compact(self) -> None:
        """Drops stale pairs of the log, and the oldest deletions beyond `keep_deletes`."""
        forget = self._deleted - self._keep_deletes
        revisions, keys = array("Q"), []
        for revision, key in zip(self._log_revisions, self._log_keys, strict=True):
            entry = self._entries.get(key)
            if entry is None or entry.revision != revision:
                continue
            if entry.value is _GONE and forget > 0:
                forget -= 1
                self._deleted -= 1
                self._floor = revision
                del self._entries[key]
                continue
            revisions.append(revision)
            keys.append(key)
        self._log_revisions, self._log_keys = revisions, keys

    def _may_resume(self, position: Position) -> bool:
        return position.epoch == self.epoch and self._floor <= position.revision <= self._revision

    def _delta(self, cursor: int) -> Batch[M]:
        """What changed after `cursor` and may be seen; empty if all of it has changed again since, or nothing did."""
        return self._share(cursor, max(self._sealed, cursor), self._max_batch, None)

    def _snapshot_part(self, cursor: int, began: int, limit: int) -> Batch[M]:
        """Part of a snapshot that began at revision `began`.

        It is complete only when it reaches the newest revision: a key that changed since `began` has moved to the end
        of the order, and until it is sent the subscriber would take it for deleted.
        """
        return self._share(cursor, self._revision, limit, began)

    def _share(self, cursor: int, upto: int, limit: int, began: int | None) -> Batch[M]:
        if len(self._subscriptions) < 2:
            return self._collect(cursor, upto, limit, began)  # nobody to share with
        shared = self._shared
        if shared is None:
            shared = self._shared = OrderedDict()
        key = (cursor, upto, limit, -1 if began is None else began)
        batch = shared.get(key)
        if batch is None:
            batch = shared[key] = self._collect(cursor, upto, limit, began)
            if len(shared) > _SHARED_BATCHES:
                shared.popitem(last=False)
        return batch

    def _collect(self, cursor: int, upto: int, limit: int, began: int | None) -> Batch[M]:
        keys: list[str] = []
        upserts: list[M] = []
        deletes: list[str] = []
        end, last = upto, cursor
        for index in range(bisect_right(self._log_revisions, cursor), len(self._log_keys)):
            revision, key = self._log_revisions[index], self._log_keys[index]
            if revision > upto:
                break
            entry = self._entries.get(key)
            if entry is None or entry.revision != revision:
                continue
            if len(keys) + len(deletes) == limit:
                end = last
                break
            last = revision
            if entry.value is not _GONE:
                keys.append(key)
                upserts.append(entry.value)
            elif began is None or revision > began:
                deletes.append(key)
        complete = began is None or end == upto
        position = Position(self.epoch, end) if complete else START
        return Batch(position, began is not None and cursor == 0, complete, keys, upserts, deletes, end)

    def _bytes_of(self, batch: Batch[M]) -> bytes:
        if batch.wire is None:
            if self._encode is None:
                raise TypeError("this topic was made without `encode`")
            batch.wire = self._encode(batch)
        return batch.wire


class Subscription(Generic[M]):
    """One subscriber's cursor. Iterate over it for batches, or over `encoded()` for their bytes; not both.

    :ivar on_news: called, within the loop, whenever `take` may have a batch, and when it is closed; see push.py.
    """

    __slots__ = (
        "_acked", "_began", "_closed", "_cursor", "_greeted", "_limit", "_max_unacked", "_topic", "_unacked",
        "_waiter", "errors", "name", "on_news",
    )  # fmt: skip

    def __init__(self, topic: Topic[M], position: Position, name: str, max_unacked: int | None) -> None:
        self.name = name
        self.errors: Mapping[str, str] = _NO_ERRORS
        self._topic = topic
        self._max_unacked = max_unacked
        # Batches sent and not acknowledged: their revision, or _PART. Kept only if they are limited.
        self._unacked: deque[int] | None = None if max_unacked is None else deque()
        self._acked = 0
        self._waiter: asyncio.Future[None] | None = None
        self.on_news: Callable[[], None] | None = None
        self._closed = False
        self._cursor = position.revision
        # Revision at which the snapshot under way began.
        self._began: int | None = None
        self._limit = topic._max_batch
        # A first batch comes at once, empty if need be: the subscriber learns that it is served.
        self._greeted = False
        if not topic._may_resume(position):
            self._begin_snapshot()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Ends the iteration; the topic forgets the subscriber."""
        self._closed = True
        self._wake()
        self._topic._forget(self)

    def status(self) -> SubscriberStatus:
        return SubscriberStatus(self.name, self._cursor, self._acked, self.errors)

    def acknowledge(self, position: Position, errors: Mapping[str, str] | None = None) -> None:
        """The subscriber has brought everything up to `position` into force, except `errors` (all that stand, by key).

        One acknowledgement stands for all batches before it. An unknown position is ignored.
        """
        self.errors = dict(errors) if errors else _NO_ERRORS
        if position.epoch == self._topic.epoch:
            self._acked = max(self._acked, position.revision)
        if self._unacked:
            self._settle(self._unacked, position)
        self._wake()

    def _settle(self, unacked: deque[int], position: Position) -> None:
        if not position.epoch:
            if unacked[0] == _PART:
                unacked.popleft()
        elif position.epoch == self._topic.epoch:
            done = [i for i, revision in enumerate(unacked) if _PART < revision <= position.revision]
            for _ in range(done[-1] + 1 if done else 0):
                unacked.popleft()

    def __aiter__(self) -> AsyncIterator[Batch[M]]:
        return self

    async def __anext__(self) -> Batch[M]:
        """The next batch, as soon as there is one and the subscriber may have it."""
        while not self._closed:
            batch = self.take()
            if batch is not None:
                return batch
            await self._woken()
        raise StopAsyncIteration

    def take(self) -> Batch[M] | None:
        """The next batch, if there is one and the subscriber may have it."""
        topic = self._topic
        if self._closed:
            return None
        if self._unacked is not None and self._max_unacked is not None and len(self._unacked) >= self._max_unacked:
            return None
        if topic._floor > max(self._cursor, self._began or 0):
            self._begin_snapshot()
        if self._began is not None:
            return self._next_of_snapshot(self._began)
        while topic._sealed > self._cursor or not self._greeted:
            batch = topic._delta(self._cursor)
            self._cursor = batch.end
            if batch.upserts or batch.deletes or not self._greeted:
                return self._sent(batch)
        return None

    def encode(self, batch: Batch[M]) -> bytes:
        """A batch of this subscription as the topic's `encode` made it, once for all subscribers at the same cursor."""
        return self._topic._bytes_of(batch)

    async def encoded(self) -> AsyncIterator[bytes]:
        """All batches, encoded."""
        async for batch in self:
            yield self.encode(batch)

    def _begin_snapshot(self) -> None:
        self._cursor, self._began, self._limit = 0, self._topic._revision, self._topic._max_batch

    def _next_of_snapshot(self, began: int) -> Batch[M]:
        batch = self._topic._snapshot_part(self._cursor, began, self._limit)
        self._cursor = batch.end
        if batch.complete:
            self._began = None
        elif batch.end >= began:
            # Only keys that keep changing are left. Growing parts end the race with whoever changes them.
            self._limit *= 2
        return self._sent(batch)

    def _sent(self, batch: Batch[M]) -> Batch[M]:
        self._greeted = True
        if self._unacked is not None:
            self._unacked.append(batch.position.revision if batch.complete else _PART)
        return batch

    async def _woken(self) -> None:
        """Returns after the next change, acknowledgement or close. What happened before is not waited for again."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self.on_news is not None:
            self.on_news()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
