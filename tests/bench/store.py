"""The store: durable writes a second against bare SQLite in the same folder, and what a pool costs to write.

The disk is shared with whatever else runs, so the measurements take turns and each one's best turn counts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw
from sqlalchemy import Column, MetaData, String, Table, insert

from ipam.model import CloudInterface, Instance
from ipam.ports import Changes
from ipam.store import SqlPoolStore
from services.runtime.store import Database, migrate, open_database
from tests.bench.report import Row

leases = Table("leases", MetaData(), Column("address", String, primary_key=True), Column("pod", String, nullable=False))

TOGETHER = 64
TURNS = 10


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="store")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement, in turns")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="plimsoll-bench-") as folder:
        floor, floor_together, alone, together = asyncio.run(_turns(Path(folder), options.seconds / TURNS))
        fleet_s, one_s, bare_s, load_s = asyncio.run(_pools(Path(folder)))
    return [
        Row("store: leases, one commit each", alone, "1/s", baseline=floor),
        Row(f"store: leases, {TOGETHER} callers, group commit", together, "1/s", baseline=floor, target="ratio >= 1"),
        Row(f"store: bare SQLite, {TOGETHER} leases a commit", floor_together, "1/s", baseline=floor),
        Row("store: 1,000 instances x 20 addresses in one", fleet_s, "s", target="<= 1"),
        Row("store: one instance with 20 addresses, p50, to a bare commit", one_s * 1000, "ms", baseline=bare_s * 1000),
        Row("store: load 1,000 instances x 20 addresses", load_s, "s", target="<= 1"),
    ]


async def _turns(folder: Path, seconds: float) -> tuple[float, ...]:
    """Leases a second: bare, bare with many in a commit, by the store, by the store with many callers."""
    bare = _bare_database(folder / "bare.db")
    numbers = itertools.count()
    rates: list[tuple[float, ...]] = []
    async with open_database(f"sqlite:///{folder}/leases.db") as database:
        await database.write(leases.metadata.create_all)
        for _ in range(TURNS):
            floor = (_bare(bare, numbers, seconds, each=1), _bare(bare, numbers, seconds, each=TOGETHER))
            ours = [await _rate(database, numbers, seconds, callers=callers) for callers in (1, TOGETHER)]
            rates.append((*floor, *ours))
    bare.close()
    return tuple(map(max, zip(*rates, strict=True)))


def _bare_database(path: Path) -> apsw.Connection:
    database = apsw.Connection(str(path))
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        database.execute(f"PRAGMA {pragma}").fetchall()
    database.execute("CREATE TABLE leases (address TEXT PRIMARY KEY, pod TEXT NOT NULL)")
    return database


def _bare(database: apsw.Connection, numbers: itertools.count[int], seconds: float, *, each: int) -> float:
    """Leases a second by apsw alone, with the same durability, `each` in a commit."""
    written = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        with database:
            for _ in range(each):
                database.execute("INSERT INTO leases VALUES (?, ?)", (f"address-{next(numbers)}", "pod"))
        written += each
    return written / (time.perf_counter() - began)


async def _rate(database: Database, numbers: itertools.count[int], seconds: float, *, callers: int) -> float:
    statement = insert(leases)
    until = time.perf_counter() + seconds

    def lease(number: int) -> Callable[..., None]:
        return lambda connection: connection.execute(statement, {"address": f"address-{number}", "pod": "pod"})

    async def caller() -> int:
        written = 0
        while time.perf_counter() < until:
            await database.write(lease(next(numbers)))
            written += 1
        return written

    began = time.perf_counter()
    written = await asyncio.gather(*(caller() for _ in range(callers)))
    return sum(written) / (time.perf_counter() - began)


async def _pools(folder: Path) -> tuple[float, float, float, float]:
    """Seconds to write 1,000 instances at once, one of them (p50), a bare row in turn with it (p50), to load all."""
    bare = _bare_database(folder / "bare-pools.db")
    async with open_database(f"sqlite:///{folder}/pools.db") as database:
        await migrate(database, "ipam.migrations")
        store = SqlPoolStore(database)
        fence = await store.lead("bench", 60) or 0
        began = time.perf_counter()
        await store.apply(Changes(instances=[_instance(n, 20) for n in range(1000)]), leader=fence)
        fleet_s = time.perf_counter() - began
        ours, theirs = [], []
        for n in range(200):
            began = time.perf_counter()
            await store.apply(Changes(instances=[_instance(n, 21)]), leader=fence)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            bare.execute("INSERT INTO leases VALUES (?, ?)", (f"address-{n}", "pod"))
            theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        await store.load()
        load_s = time.perf_counter() - began
    bare.close()
    return fleet_s, statistics.median(ours), statistics.median(theirs), load_s


def _instance(number: int, addresses: int) -> Instance:
    third, fourth = divmod(number, 250)
    owned = CloudInterface(
        id=f"eni-{number}",
        mac="02:00:00:00:00:01",
        subnet_id="subnet-1",
        vpc_id="vpc-1",
        zone="a",
        primary_address=f"10.200.{third}.{fourth}",
        addresses=tuple(f"10.{third}.{fourth}.{host}" for host in range(addresses)),
        instance_id=f"i-{number}",
    )
    return Instance(f"i-{number}", "m5.large", "a", "vpc-1", interfaces=(owned,))
