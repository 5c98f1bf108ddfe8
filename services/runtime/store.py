"""The store of a central service: SQLite by default, PostgreSQL by another URL.

    async with open_database("sqlite:////var/lib/plimsoll/registry.db") as database:
        await migrate(database, "services.registry.migrations")
        await database.write(lambda connection: connection.execute(...))

Work is a function over a SQLAlchemy Core connection within a transaction. sqlite.py and postgres.py say how each is
spoken to, group_commit.py how writes share a sync of the disk, migrations.py how tables come to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from services.runtime.backend import READERS, Backend
from services.runtime.group_commit import GroupCommit, Target
from services.runtime.masking import without_secrets
from services.runtime.sqlite import open_sqlite
from services.runtime.store_error import StoreError, store_error

T = TypeVar("T")
Work = Callable[[Connection], T]


class Database:
    """A database that is open. Everything raises StoreError, or what the work itself raises."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        target = Target(backend.writer, backend.location, backend.verify, backend.passing)
        self._writer = GroupCommit(target)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._closed = False

    @property
    def name(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._backend.name

    @property
    def location(self) -> str:
        """The database's name for messages, without secrets."""
        return self._backend.location

    @property
    def url(self) -> URL:
        """What it was opened by, with its password, if it has one."""
        return self._backend.url

    async def read(self, work: Work[T]) -> T:
        """Runs `work` in a transaction that sees one state of the database throughout, and may not write."""
        if self._closed:
            raise StoreError(f"{self.location} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, work)

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in a serialisable transaction and returns its result once it is durable: all of it, or an error.

        Writes of one Database run one after the other, in the order they were asked for. `work` may run more than once,
        so it changes nothing but the database.
        """
        return await self._writer.write(work)

    async def exclusive(self, name: str, work: Work[T]) -> T:
        """As `write`, while every other process that calls it with the same name waits; for migrations."""
        if self._closed:
            raise StoreError(f"{self.location} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._exclusive, name, work)

    def _read(self, work: Work[T]) -> T:
        self._backend.verify()
        for last in (False, True):
            try:
                with self._backend.readers.connect() as connection, connection.begin():
                    return work(connection)
            except SQLAlchemyError as error:
                if last or not self._backend.passing(error):
                    raise store_error(error, self.location) from error
        raise AssertionError

    def _exclusive(self, name: str, work: Work[T]) -> T:
        try:
            with self._backend.writer.connect() as connection:
                if self.name == "postgresql":
                    # A snapshot taken before the wait would not show what the one waited for has done.
                    connection = connection.execution_options(isolation_level="READ COMMITTED")
                with connection.begin():
                    self._backend.exclude(connection, name)
                    return work(connection)
        except SQLAlchemyError as error:
            raise store_error(error, self.location) from error

    async def close(self) -> None:
        """Finishes what was asked for, then lets go of the database."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._threads.shutdown()
        self._backend.dispose()


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """Opens "sqlite:////absolute/file.db" or "postgresql://user@host/name". Raises StoreError."""
    database = Database(await asyncio.to_thread(_open, url))
    try:
        yield database
    finally:
        await asyncio.shield(database.close())


def _open(url: str) -> Backend:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is not None and parsed.drivername == "sqlite" and Path(parsed.database or "").is_absolute():
        return open_sqlite(Path(parsed.database or ""))
    if parsed is not None and parsed.drivername == "postgresql" and parsed.database:
        from services.runtime.postgres import open_postgres  # 10 MB that a service on SQLite never needs

        return open_postgres(parsed)
    said = without_secrets(url)
    raise StoreError(
        f"{said!r} is not a database's URL",
        kind="invalid",
        field="store",
        remedy='say "sqlite:////absolute/path/of/file.db" (four slashes) or "postgresql://user@host/database"',
    )


async def migrate(database: Database, package: str) -> None:
    """Brings the tables of `package` ("ipam.migrations") to its newest version. Safe in many replicas at once.

    Raises StoreError, of kind "precondition" when a newer release than this one has been here.
    """
    from services.runtime import migrations

    await database.exclusive(package, partial(migrations.upgrade, package=package, location=database.location))


__all__ = ["Database", "StoreError", "migrate", "open_database"]
