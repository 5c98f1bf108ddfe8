"""What a Database promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.runtime.store import Database, StoreError, open_database

leases = Table("leases", MetaData(), Column("address", String, primary_key=True), Column("pod", String, nullable=False))
counters = Table("counters", leases.metadata, Column("name", String, primary_key=True), Column("value", Integer))


@pytest.fixture
async def leases_database(store_database: Database) -> Database:
    await store_database.write(leases.metadata.create_all)
    return store_database


def lease(address: str, pod: str = "pod") -> Callable[[Connection], object]:
    return lambda connection: connection.execute(insert(leases).values(address=address, pod=pod))


def addresses(connection: Connection) -> list[str]:
    return list(connection.scalars(select(leases.c.address).order_by(leases.c.address)))


async def test_what_is_written_is_read(leases_database: Database) -> None:
    await leases_database.write(lease("10.0.0.1"))
    assert await leases_database.read(addresses) == ["10.0.0.1"]


async def test_a_write_returns_what_its_work_returns(leases_database: Database) -> None:
    assert await leases_database.write(lambda connection: connection.execute(select(func.count(1))).scalar()) == 1


async def test_a_failing_unit_fails_alone_and_leaves_nothing(leases_database: Database) -> None:
    await leases_database.write(lease("10.0.0.1"))
    started = threading.Event()

    def hold(connection: Connection) -> None:
        started.wait(10)  # those that follow gather for one commit

    def lease_two(connection: Connection) -> None:
        lease("10.0.0.50")(connection)
        lease("10.0.0.1")(connection)

    holding = asyncio.ensure_future(leases_database.write(hold))
    others = [asyncio.ensure_future(leases_database.write(lease(f"10.0.0.{n}"))) for n in (2, 3)]
    failing = asyncio.ensure_future(leases_database.write(lease_two))
    last = asyncio.ensure_future(leases_database.write(lease("10.0.0.4")))
    await asyncio.sleep(0)
    started.set()
    await asyncio.gather(holding, *others, last)
    with pytest.raises(StoreError) as refused:
        await failing
    assert refused.value.kind == "conflict"
    assert await leases_database.read(addresses) == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]


async def test_a_domain_error_passes_through_and_undoes_the_work(leases_database: Database) -> None:
    class NoSuchPod(Exception):
        pass

    def work(connection: Connection) -> None:
        lease("10.0.0.9")(connection)
        raise NoSuchPod

    with pytest.raises(NoSuchPod):
        await leases_database.write(work)
    assert await leases_database.read(addresses) == []


@pytest.mark.parametrize("fault", [SystemExit(3), KeyboardInterrupt(), AssertionError("a bug")])
async def test_no_fault_of_the_work_stops_the_writer(leases_database: Database, fault: BaseException) -> None:
    def work(connection: Connection) -> None:
        raise fault

    outcome = await _outcome(leases_database, work)
    assert type(outcome) is type(fault)
    await asyncio.wait_for(leases_database.write(lease("10.0.0.1")), 10)


async def _outcome(database: Database, work: Callable[[Connection], None]) -> BaseException | None:
    try:
        await database.write(work)
    except BaseException as error:  # noqa: BLE001 - what is told is what is tested
        return error
    return None


async def test_work_may_recover_within_a_savepoint(leases_database: Database) -> None:
    await leases_database.write(lease("10.0.0.1"))

    def work(connection: Connection) -> str:
        try:
            with connection.begin_nested():
                lease("10.0.0.1")(connection)
        except IntegrityError:
            lease("10.0.0.2")(connection)
            return "recovered"
        return "no conflict"

    assert await leases_database.write(work) == "recovered"
    assert await leases_database.read(addresses) == ["10.0.0.1", "10.0.0.2"]


async def test_readers_may_not_write(leases_database: Database) -> None:
    with pytest.raises(StoreError):
        await leases_database.read(lease("10.0.0.1"))


async def test_writes_happen_in_the_order_they_were_asked_for(leases_database: Database) -> None:
    seen: list[int] = []

    def see(number: int, _: Connection) -> None:
        seen.append(number)

    await asyncio.gather(*(leases_database.write(partial(see, number)) for number in range(100)))
    assert seen == list(range(100))


async def test_two_processes_count_without_losing_one(leases_database: Database, store_url: str) -> None:
    await leases_database.write(lambda c: c.execute(insert(counters).values(name="calls", value=0)))

    def count(connection: Connection) -> None:
        value = connection.scalars(select(counters.c.value)).one()
        connection.execute(update(counters).values(value=value + 1))

    async with open_database(store_url) as other:
        await asyncio.gather(*(database.write(count) for _ in range(25) for database in (leases_database, other)))
    assert await leases_database.read(lambda c: c.scalars(select(counters.c.value)).one()) == 50


async def test_a_closed_database_says_so(store_url: str) -> None:
    async with open_database(store_url) as database:
        pass
    for call in (database.read, database.write):
        with pytest.raises(StoreError, match="is closed"):
            await call(lambda connection: None)


async def test_closing_finishes_what_was_asked_for(store_url: str) -> None:
    async with open_database(store_url) as database:
        await database.write(leases.metadata.create_all)
        writes = [asyncio.ensure_future(database.write(lease(f"10.0.1.{n}"))) for n in range(20)]
        await asyncio.sleep(0)
    assert all(write.done() for write in writes)
    async with open_database(store_url) as database:
        assert len(await database.read(addresses)) == 20


async def test_a_cancelled_caller_leaves_the_writer_working(leases_database: Database) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        begun.set()
        gate.wait(10)

    holding = asyncio.ensure_future(leases_database.write(hold))
    await asyncio.to_thread(begun.wait, 10)
    waiting = asyncio.ensure_future(leases_database.write(lease("10.0.0.1")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    gate.set()
    await holding
    await leases_database.write(lease("10.0.0.2"))
    assert await leases_database.read(addresses) == ["10.0.0.2"]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="nothing is not a URL"),
        pytest.param("sqlite://", id="memory is not durable"),
        pytest.param("sqlite:///relative.db", id="a relative path depends on where one stands"),
        pytest.param("mysql://u:secret@h/d", id="neither is another database"),
        pytest.param("postgresql://u:secret@h", id="a server without its database"),
    ],
)
async def test_a_wrong_url_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        async with open_database(url):
            pass
    assert refused.value.kind == "invalid"
    assert refused.value.field == "store"
    assert "sqlite:////" in refused.value.remedy
    assert "secret" not in refused.value.message
