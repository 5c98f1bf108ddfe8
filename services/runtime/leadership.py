"""One process at a time works on a database; the others stand by and follow within a moment of its end.

The lock ends with its holder, however that dies: a file lock beside a SQLite file, a session's advisory lock in
PostgreSQL. A holder cut off from its server may believe in its lock for some seconds more, so what it writes has to
carry a fencing token that its follower has raised by then.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final, NoReturn

import psycopg
import structlog

from services.runtime.postgres import lock_key
from services.runtime.store import Database
from services.runtime.store_error import StoreError

POLL_S: Final = 0.25
WATCH_S: Final = 2.0

StandingBy = Callable[[str], None]


class Leadership:
    """The lock, held. `watch` raises StoreError once it is lost, and does nothing else."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check

    async def watch(self) -> NoReturn:
        while True:
            await asyncio.sleep(WATCH_S)
            await self._check()


@asynccontextmanager
async def sole_leader(
    database: Database, name: str, *, standing_by: StandingBy = lambda why: None
) -> AsyncIterator[Leadership]:
    """Waits until no other process holds `name` on this database, and holds it. Raises StoreError.

    :param standing_by: told why, once, if there is to be a wait, which may take days: Lifecycle.standing_by.
    """
    holding = _in_postgres if database.name == "postgresql" else _beside_file
    async with holding(database, name, standing_by) as leadership:
        yield leadership


@asynccontextmanager
async def _beside_file(database: Database, name: str, standing_by: StandingBy) -> AsyncIterator[Leadership]:
    with _lock_file(Path(f"{database.url.database}.{name}.lock")) as lock:

        async def take() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        async def check() -> None:
            """The kernel keeps the lock for as long as the file is open."""

        await _taken(take, database, name, standing_by)
        yield Leadership(check)


def _lock_file(path: Path) -> IO[str]:
    # Left behind when done: a file that comes and goes could be locked twice, under the same name.
    return path.open("w")


@asynccontextmanager
async def _in_postgres(database: Database, name: str, standing_by: StandingBy) -> AsyncIterator[Leadership]:
    url = database.url.render_as_string(hide_password=False)
    try:
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=5, keepalives_idle=5, keepalives_interval=2, keepalives_count=3
        )
    except psycopg.Error as error:
        raise StoreError(f"{database.location} cannot be reached: {error}", retry_after_s=1.0) from error
    async with connection:

        async def take() -> bool:
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(name),))).fetchone()
            return bool(row and row[0])

        async def check() -> None:
            try:
                async with asyncio.timeout(WATCH_S):
                    await connection.execute("SELECT 1")
            except (psycopg.Error, TimeoutError) as error:
                raise StoreError(
                    f"{database.location} was lost, and with it the lead of {name}",
                    remedy="nothing: another replica follows, and this one stands by once it is started again",
                ) from error

        await _taken(take, database, name, standing_by)
        yield Leadership(check)


async def _taken(take: Callable[[], Awaitable[bool]], database: Database, name: str, standing_by: StandingBy) -> None:
    try:
        if await take():
            return
        structlog.get_logger("leadership").info(
            "standing by: another process leads", name=name, store=database.location
        )
        standing_by(f"another process leads {name} on {database.location}")
        while not await take():  # noqa: ASYNC110 - nothing tells when another process lets go
            await asyncio.sleep(POLL_S)
    except psycopg.Error as error:
        raise StoreError(f"{database.location} was lost while standing by: {error}", retry_after_s=1.0) from error


__all__ = ["Leadership", "sole_leader"]
