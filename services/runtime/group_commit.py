"""One thread that writes: what waits while a commit runs shares the next one.

A commit costs a sync of the disk, whatever it holds. Each unit of work has a savepoint of its own, so that one that
fails takes no other with it, and is told of its end only when the commit that it shares is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from prometheus_client import Histogram
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import InternalError, OperationalError, SQLAlchemyError

from services.runtime.store_error import StoreError, store_error

T = TypeVar("T")

COMMIT_SECONDS: Final = Histogram(
    "plimsoll_store_commit_seconds",
    "Time of one transaction of the store, its work and its sync of the disk.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
COMMIT_UNITS: Final = Histogram(
    "plimsoll_store_commit_units",
    "Units of work that share one transaction.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)

MAX_BATCH: Final = 256
PATIENCE_S: Final = 5.0


@dataclass(slots=True)
class _Unit:
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where units are written.

    :param location: name of the database for messages, without secrets.
    :param verify: raises StoreError when the database is not the one that was opened; called before each commit.
    :param passing: whether an error goes away when the same is tried again.
    """

    engine: Engine
    location: str
    verify: Callable[[], None]
    passing: Callable[[BaseException], bool]


@dataclass(slots=True)
class GroupCommit:
    """The writer of one database. Made within the event loop whose tasks will await it."""

    target: Target
    _queue: queue.SimpleQueue[_Unit | None] = field(default_factory=queue.SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in the writer's thread and returns its result once it is durable.

        `work` may run more than once (a transaction that must be tried again), so it changes nothing but the database.
        A caller that is cancelled does not undo work that has begun.
        """
        unit = _Unit(work, self._loop.create_future())
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.target.location} is closed")
            self._queue.put(unit)
        result: T = await unit.future
        return result

    def close(self) -> None:
        """Writes what waits, then ends the thread. Blocking."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            units, last = self._gather(first)
            units = [unit for unit in units if not unit.future.cancelled()]
            if units:
                began = time.perf_counter()
                self._write(units)
                COMMIT_SECONDS.observe(time.perf_counter() - began)
                COMMIT_UNITS.observe(len(units))
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits any more
                    self._loop.call_soon_threadsafe(_resolve, units)
            if last:
                return

    def _gather(self, first: _Unit) -> tuple[list[_Unit], bool]:
        units = [first]
        with contextlib.suppress(queue.Empty):
            while len(units) < MAX_BATCH:
                unit = self._queue.get_nowait()
                if unit is None:
                    return units, True
                units.append(unit)
        return units, False

    def _write(self, units: list[_Unit]) -> None:
        until = time.monotonic() + PATIENCE_S
        pause_s = 0.005
        while True:
            try:
                self._transaction(units)
                return
            except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must be told
                if self.target.passing(error) and time.monotonic() + pause_s < until:
                    time.sleep(random.uniform(0, pause_s))  # noqa: S311 - jitter, not secrecy
                    pause_s = min(pause_s * 2, 0.5)
                    continue
                if len(units) > 1 and not isinstance(error, StoreError) and not self.target.passing(error):
                    for unit in units:
                        self._write([unit])
                    return
                for unit in units:
                    unit.error = self._told(error)
                return

    def _transaction(self, units: list[_Unit]) -> None:
        with self.target.engine.connect() as connection:
            transaction = connection.begin()
            try:
                for unit in units:
                    self._unit(connection, unit, alone=len(units) == 1)
                if all(unit.error is not None for unit in units):
                    transaction.rollback()
                    return
                self.target.verify()
            except BaseException:
                # What broke the transaction is worth more than what broke its rollback.
                with contextlib.suppress(SQLAlchemyError):
                    transaction.rollback()
                connection.invalidate()
                raise
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                with contextlib.suppress(SQLAlchemyError):
                    transaction.rollback()
                connection.invalidate()
                if self.target.passing(error) and not getattr(error, "connection_invalidated", False):
                    raise
                raise store_error(error, self.target.location, committing=True) from error

    def _unit(self, connection: Connection, unit: _Unit, *, alone: bool) -> None:
        unit.result = unit.error = None
        try:
            if alone:
                unit.result = unit.work(connection)
                return
            with connection.begin_nested():
                unit.result = unit.work(connection)
        except Exception as error:
            # A full disk, for instance, has SQLite undo the whole transaction with all its savepoints: each for itself.
            if self.target.passing(error) or (not alone and isinstance(error, OperationalError | InternalError)):
                raise
            unit.error = self._told(error)

    def _told(self, error: BaseException) -> BaseException:
        """What a caller is told; an object of its own for each, since raising one writes to it."""
        if not isinstance(error, SQLAlchemyError):
            return error
        told = store_error(error, self.target.location)
        if told is error:
            told = copy.copy(told)
        told.__cause__ = error
        return told


def _resolve(units: list[_Unit]) -> None:
    for unit in units:
        if unit.future.done():
            continue
        if unit.error is not None:
            unit.future.set_exception(unit.error)
        else:
            unit.future.set_result(unit.result)


__all__ = ["GroupCommit", "Target"]
