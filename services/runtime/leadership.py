"""One process at a time works on a database; the others stand by and follow within a moment of its end.

The lock ends with its holder, however that dies: a file lock beside a SQLite file, a session's advisory lock in
PostgreSQL. A holder cut off from its server may believe in its lock for some seconds more, so what it writes has to
carry a fencing token that its follower has raised by then.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, Final, NoReturn

import structlog

from services.runtime.store import Database

POLL_S: Final = 0.25
WATCH_S: Final = 2.0  # between two looks at a lock that is held

StandingBy = Callable[[str], None]
# Takes the lock, if nobody holds it; raises StoreError once the lock that is held is lost.
Take = Callable[[], Awaitable[bool]]
Check = Callable[[], Awaitable[None]]
Lock = Callable[[Database, str], AbstractAsyncContextManager[tuple[Take, Check]]]


class Leadership:
    """The lock, held. `watch` raises StoreError once it is lost, and does nothing else."""

    def __init__(self, check: Check) -> None:
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
    if database.name == "postgresql":
        from services.runtime.advisory_lock import advisory_lock  # its driver is 10 MB that others never need

        lock: Lock = advisory_lock
    else:
        lock = _beside_file
    async with lock(database, name) as (take, check):
        await _taken(take, database, name, standing_by)
        yield Leadership(check)


@asynccontextmanager
async def _beside_file(database: Database, name: str) -> AsyncIterator[tuple[Take, Check]]:
    with _lock_file(Path(f"{database.url.database}.{name}.lock")) as lock:

        async def take() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        async def check() -> None:
            """The kernel keeps the lock for as long as the file is open."""

        yield take, check


def _lock_file(path: Path) -> IO[str]:
    # Left behind when done: a file that comes and goes could be locked twice, under the same name.
    return path.open("w")


async def _taken(take: Take, database: Database, name: str, standing_by: StandingBy) -> None:
    if await take():
        return
    structlog.get_logger("leadership").info("standing by: another process leads", name=name, store=database.location)
    standing_by(f"another process leads {name} on {database.location}")
    while not await take():  # noqa: ASYNC110 - nothing tells when another process lets go
        await asyncio.sleep(POLL_S)


__all__ = ["Leadership", "sole_leader"]
