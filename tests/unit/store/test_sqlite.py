"""What is particular to SQLite as a store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from sqlalchemy import Connection, text

from services.runtime.sqlite import FIXED_VERSION
from services.runtime.store import Database, StoreError, open_database


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def sql(statement: str) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(text(statement))


async def pragma(database: Database, name: str) -> object:
    return await database.write(lambda connection: connection.execute(text(f"PRAGMA {name}")).scalar())


async def test_it_is_the_fixed_sqlite(tmp_path: Path) -> None:
    async with open_database(url(tmp_path / "a.db")) as database:
        version = await database.read(lambda c: str(c.execute(text("SELECT sqlite_version()")).scalar()))
    assert version == apsw.sqlite_lib_version()
    assert tuple(int(part) for part in version.split(".")) >= FIXED_VERSION


@pytest.mark.parametrize(
    ("name", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)]
)
async def test_it_is_durable_and_strict(tmp_path: Path, name: str, value: object) -> None:
    async with open_database(url(tmp_path / "a.db")) as database:
        assert await pragma(database, name) == value


async def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    async with open_database(url(tmp_path / "a.db")) as database:
        await database.write(sql("CREATE TABLE t (a)"))
        modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("a.db", "a.db-wal", "a.db-shm")}
    assert set(modes.values()) == {0o600}, modes


async def test_a_file_removed_while_open_is_reported_and_stays_away(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_database(url(path)) as database:
        await database.write(sql("CREATE TABLE t (a)"))
        path.unlink()
        for _ in range(2):
            for call, statement in ((database.write, "INSERT INTO t VALUES (1)"), (database.read, "SELECT a FROM t")):
                with pytest.raises(StoreError, match="removed or replaced") as lost:
                    await asyncio.wait_for(call(sql(statement)), 5)
                assert lost.value.kind == "unavailable"
                assert lost.value.remedy
        assert not path.exists()


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("not a database, and long enough to have a header of its own " * 20)
    with pytest.raises(StoreError, match="not a database"):
        async with open_database(url(tmp_path / "a.db")):
            pass


async def test_a_missing_folder_is_reported_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file") as refused:
        async with open_database(url(tmp_path / "missing" / "a.db")):
            pass
    assert (refused.value.kind, refused.value.field) == ("precondition", "store")


async def test_a_full_database_fails_one_unit_not_its_companions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.sqlite._PRAGMAS", ("journal_mode = WAL", "max_page_count = 20"))
    async with open_database(url(tmp_path / "a.db")) as database:
        await database.write(sql("CREATE TABLE t (a)"))
        gate = threading.Event()
        holding = asyncio.ensure_future(database.write(lambda connection: gate.wait(10)))
        small = [asyncio.ensure_future(database.write(sql(f"INSERT INTO t VALUES ({n})"))) for n in range(2)]
        large = asyncio.ensure_future(database.write(sql("INSERT INTO t VALUES (zeroblob(1000000))")))
        after = asyncio.ensure_future(database.write(sql("INSERT INTO t VALUES (2)")))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(holding, *small, after)
        with pytest.raises(StoreError, match="full"):
            await large
        rows = await database.read(lambda c: sorted(c.execute(text("SELECT a FROM t")).scalars()))
    assert rows == [0, 1, 2]


async def test_waiting_writes_share_one_commit(tmp_path: Path) -> None:
    async with open_database(url(tmp_path / "a.db")) as database:
        await database.write(sql("CREATE TABLE t (a)"))
        seen: list[int] = []
        gate = threading.Event()

        def wal_frames(connection: Connection) -> None:
            connection.execute(text("INSERT INTO t VALUES (1)"))
            seen.append((tmp_path / "a.db-wal").stat().st_size)

        holding = asyncio.ensure_future(database.write(lambda connection: gate.wait(10)))
        units = [asyncio.ensure_future(database.write(wal_frames)) for _ in range(50)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(holding, *units)
    assert len(set(seen)) == 1, "the log grew between units that should share a commit"


async def test_a_reader_sees_one_state_while_another_writes(tmp_path: Path) -> None:
    async with open_database(url(tmp_path / "a.db")) as database:
        await database.write(sql("CREATE TABLE t (a)"))
        reading, written = threading.Event(), threading.Event()

        def count_twice(connection: Connection) -> tuple[int, int]:
            count = text("SELECT count(*) FROM t")
            first = connection.execute(count).scalar_one()
            reading.set()
            assert written.wait(10)
            return first, connection.execute(count).scalar_one()

        counting = asyncio.ensure_future(database.read(count_twice))
        await asyncio.to_thread(reading.wait, 10)
        await database.write(sql("INSERT INTO t VALUES (1)"))
        written.set()
        assert await counting == (0, 0)


async def test_a_writer_of_another_process_is_waited_for_then_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.runtime.sqlite._PRAGMAS", ("busy_timeout = 50", "journal_mode = WAL"))
    async with open_database(url(tmp_path / "a.db")) as database:
        other = apsw.Connection(str(tmp_path / "a.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as busy:
            await database.write(sql("CREATE TABLE t (a)"))
        assert busy.value.retry_after_s is not None
        other.execute("ROLLBACK")
        await database.write(sql("CREATE TABLE t (a)"))
