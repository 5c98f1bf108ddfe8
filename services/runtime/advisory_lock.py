"""The lead of a database in PostgreSQL: an advisory lock of a session of its own, which ends with the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from services.runtime.postgres import lock_key
from services.runtime.store import Database
from services.runtime.store_error import StoreError

CHECK_S: Final = 2.0


@asynccontextmanager
async def advisory_lock(
    database: Database, name: str
) -> AsyncIterator[tuple[Callable[[], Awaitable[bool]], Callable[[], Awaitable[None]]]]:
    """Functions that take the lock, if nobody holds it, and that check one which is held. All raise StoreError."""
    url = database.url.render_as_string(hide_password=False)
    try:
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=5, keepalives_idle=5, keepalives_interval=2, keepalives_count=3
        )
    except psycopg.Error as error:
        raise StoreError(f"{database.location} cannot be reached: {error}", retry_after_s=1.0) from error
    async with connection:

        async def take() -> bool:
            try:
                row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(name),))).fetchone()
            except psycopg.Error as error:
                raise StoreError(
                    f"{database.location} was lost while standing by: {error}", retry_after_s=1.0
                ) from error
            return bool(row and row[0])

        async def check() -> None:
            try:
                async with asyncio.timeout(CHECK_S):
                    await connection.execute("SELECT 1")
            except (psycopg.Error, TimeoutError) as error:
                raise StoreError(
                    f"{database.location} was lost, and with it the lead of {name}",
                    remedy="nothing: another replica follows, and this one stands by once it is started again",
                ) from error

        yield take, check


__all__ = ["advisory_lock"]
