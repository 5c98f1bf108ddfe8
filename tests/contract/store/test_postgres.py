"""What is particular to PostgreSQL as a store: connections that break."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import Connection, text

from services.runtime.store import StoreError, open_database

pytestmark = pytest.mark.postgres

CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()"""


async def test_a_cut_connection_is_made_anew_within_the_call(postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        await database.write(lambda c: c.execute(text("CREATE TABLE t (a int)")))
        await database.read(lambda c: c.execute(text("SELECT count(*) FROM t")))
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(CUT)
        await database.write(lambda c: c.execute(text("INSERT INTO t VALUES (1)")))
        assert await database.read(lambda c: c.execute(text("SELECT count(*) FROM t")).scalar()) == 1


async def test_a_connection_cut_in_mid_work_runs_the_work_again(postgres_url: str) -> None:
    runs = 0

    def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        connection.execute(text("INSERT INTO t VALUES (1)"))
        if runs == 1:
            with psycopg.connect(postgres_url, autocommit=True) as admin:
                admin.execute(CUT)
        connection.execute(text("INSERT INTO t VALUES (2)"))

    async with open_database(postgres_url) as database:
        await database.write(lambda c: c.execute(text("CREATE TABLE t (a int)")))
        await database.write(work)
        assert runs == 2
        assert await database.read(lambda c: list(c.execute(text("SELECT a FROM t ORDER BY a")).scalars())) == [1, 2]


async def test_a_connection_cut_in_mid_commit_is_told_as_unknown_and_never_written_twice(postgres_url: str) -> None:
    # Runs within COMMIT, and ends the connection there.
    cut_at_commit = """
        CREATE TABLE t (a int);
        CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.a = 1) EXECUTE FUNCTION cut();
    """
    runs = {1: 0, 2: 0}

    def insert(value: int) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            runs[value] += 1
            connection.execute(text(f"INSERT INTO t VALUES ({value})"))

        return work

    async with open_database(postgres_url) as database:
        await database.write(lambda c: c.exec_driver_sql(cut_at_commit))
        begun, gate = threading.Event(), threading.Event()

        def hold(connection: Connection) -> None:
            begun.set()
            gate.wait(10)

        holding = asyncio.ensure_future(database.write(hold))
        await asyncio.to_thread(begun.wait, 10)
        together = [asyncio.ensure_future(database.write(insert(value))) for value in (1, 2)]
        await asyncio.sleep(0)
        gate.set()
        await holding
        for write in together:
            with pytest.raises(StoreError, match="may or may not"):
                await write
        assert runs == {1: 1, 2: 1}
        await database.write(insert(2))
        assert await database.read(lambda c: list(c.execute(text("SELECT a FROM t")).scalars())) == [2]


async def test_a_server_that_takes_no_connection_is_reported(postgres_cluster: str, postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]
        with psycopg.connect(postgres_cluster, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            for call in (database.read, database.write):
                with pytest.raises(StoreError) as refused:
                    await asyncio.wait_for(call(lambda c: c.execute(text("SELECT 1"))), 20)
                assert refused.value.kind == "unavailable"
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await database.write(lambda c: c.execute(text("SELECT 1")))


async def test_no_server_is_reported_at_once_without_the_password() -> None:
    with pytest.raises(StoreError) as refused:
        async with open_database("postgresql://plimsoll:secret@127.0.0.1:1/plimsoll"):
            pass
    assert refused.value.kind == "unavailable"
    assert "secret" not in refused.value.message
