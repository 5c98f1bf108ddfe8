"""One process leads; another follows within a moment of its end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest

from services.runtime import leadership
from services.runtime.leadership import sole_leader
from services.runtime.store import Database, StoreError, open_database


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "POLL_S", 0.01)
    monkeypatch.setattr(leadership, "WATCH_S", 0.05)


async def test_the_second_stands_by_until_the_first_ends(store_database: Database, store_url: str) -> None:
    order: list[str] = []
    first_leads, first_may_end = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with sole_leader(store_database, "registry"):
            order.append("first leads")
            first_leads.set()
            await first_may_end.wait()
            order.append("first ends")

    async def second() -> None:
        async with open_database(store_url) as database, sole_leader(database, "registry"):
            order.append("second leads")

    leading = asyncio.create_task(first())
    await first_leads.wait()
    following = asyncio.create_task(second())
    await asyncio.sleep(0.2)  # time enough to overtake, if it could
    first_may_end.set()
    await asyncio.gather(leading, following)
    assert order == ["first leads", "first ends", "second leads"]


async def test_two_names_are_led_at_once(store_database: Database) -> None:
    async with sole_leader(store_database, "registry"), asyncio.timeout(5), sole_leader(store_database, "bgp"):
        pass


async def test_who_stands_by_can_be_stopped(store_database: Database, store_url: str) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(open_database(store_url))
        await stack.enter_async_context(sole_leader(store_database, "registry"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), sole_leader(other, "registry"):
                raise AssertionError("two lead")


async def test_watching_says_nothing_while_all_is_well(store_database: Database) -> None:
    async with sole_leader(store_database, "registry") as lead:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lead.watch(), 0.3)


@pytest.mark.postgres
async def test_a_leader_cut_off_from_its_server_notices(postgres_url: str) -> None:
    async with open_database(postgres_url) as database, sole_leader(database, "registry") as lead:
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            holders = (
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
            admin.execute(holders)
        with pytest.raises(StoreError, match="lost"):
            await asyncio.wait_for(lead.watch(), 10)
