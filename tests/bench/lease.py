"""Durable leases of a local address: each is on the disk before the next is asked for, or 16 threads share commits.

The floor is apsw alone in the same run: one insert, one commit, one fsync.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw

from ipam.journal import Journal, Owner
from ipam.local import LocalPool
from ipam.model import AddressState, PoolInterface
from tests.bench.report import Row

THREADS = 16


class _Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench lease")
    parser.add_argument("--count", type=int, default=1000, help="leases to take in each of four rounds")
    count = parser.parse_args(argv).count
    floors, singles, shared = [], [], []
    with tempfile.TemporaryDirectory(prefix="plimsoll-lease-", dir="/var/tmp") as folder:
        for number in range(4):  # in turns, so that the machine's other work strikes all alike
            floors.append(_floor(Path(folder) / f"floor{number}.db", count))
            singles.append(_single(Path(folder) / f"single{number}.db", count))
            shared.append(_shared(Path(folder) / f"shared{number}.db", count))
    floor = statistics.median(floors)
    return [
        Row("durable leases, one after the other", statistics.median(singles), "1/s", baseline=floor, target=">= 3000"),
        Row(f"durable leases, {THREADS} threads", statistics.median(shared), "1/s", baseline=floor),
    ]


def _floor(path: Path, count: int) -> float:
    connection = apsw.Connection(str(path))
    for pragma, value in (("locking_mode", "exclusive"), ("journal_mode", "wal"), ("synchronous", "full")):
        connection.pragma(pragma, value)
    connection.execute("CREATE TABLE lease (address TEXT PRIMARY KEY, owner TEXT UNIQUE, body TEXT) WITHOUT ROWID")
    began = time.perf_counter()
    for number in range(count):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO lease VALUES (?, ?, ?)", (_address(number), f"pod-{number}/eth0", "x" * 80))
        connection.execute("COMMIT")
    took_s = time.perf_counter() - began
    connection.close()
    return count / took_s


def _pool(journal: Journal, count: int) -> LocalPool:
    pool = LocalPool(journal, _Clock(), boot_id="bench")
    addresses = dict.fromkeys((_address(number) for number in range(count)), AddressState.AVAILABLE)
    interface = PoolInterface(
        "eni-1", "02:00:00:00:00:01", 0, "subnet-1", "10.0.0.0/16", "10.0.0.1", "10.0.0.2", "vpc-1", "a",
        ("10.0.0.0/16",), (), addresses,
    )  # fmt: skip
    pool.apply({interface.id: interface})
    return pool


def _single(path: Path, count: int) -> float:
    with Journal(path) as journal:
        pool = _pool(journal, count)
        attributes = {"netns": "/run/netns/some-pod", "network": "plimsoll"}
        began = time.perf_counter()
        for number in range(count):
            pool.lease(Owner(f"pod-{number}", "eth0"), pod="default/pod", attributes=attributes)
        return count / (time.perf_counter() - began)


def _shared(path: Path, count: int) -> float:
    with Journal(path) as journal, ThreadPoolExecutor(THREADS) as threads:
        pool = _pool(journal, count)
        began = time.perf_counter()
        for _ in threads.map(lambda number: pool.lease(Owner(f"pod-{number}", "eth0")), range(count)):
            pass
        return count / (time.perf_counter() - began)


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
