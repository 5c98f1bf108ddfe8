"""The bucket in Redis: one truth for all threads, processes and deaths."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from ipam.model import OperationClass
from ipam.ports import Standing
from services.runtime.redis import RedisServer
from services.worker.buckets import BudgetLimits, Place, Rate, RedisBucket
from services.worker.budget import RedisBudget, connect

pytestmark = pytest.mark.redis

MUTATE, READ = OperationClass.MUTATE, OperationClass.READ
BEGUN, FRESH = Standing(begun=True).rank, Standing().rank


@pytest.fixture
def shared_client(redis_server: str) -> Iterator[redis.Redis]:
    with connect(redis_server) as client:
        yield client


def ask_until_granted(bucket: RedisBucket, place: Place) -> float:
    """Returns when it was granted, by Redis' clock."""
    while not (verdict := bucket.attempt(place)).granted:
        time.sleep(min(verdict.wait_s, 0.5))
    return verdict.at_s


CALLER = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from ipam.model import OperationClass
from services.worker.buckets import BudgetLimits, Place, Rate, RedisBucket
from services.worker.budget import connect

url, calls, rates = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
bucket = RedisBucket(connect(url), "one", BudgetLimits(*(Rate(*rate) for rate in rates)))

def one(number):
    place = Place(OperationClass.READ if number % 3 == 0 else OperationClass.MUTATE, 2 + number % 2)
    while not (verdict := bucket.attempt(place)).granted:
        time.sleep(min(verdict.wait_s, 0.5))
    return verdict.at_s, str(place.operation_class)

with ThreadPoolExecutor(8) as pool:
    print(json.dumps(list(pool.map(one, range(calls)))))
"""


def test_no_window_of_all_processes_together_holds_more_than_the_limit(redis_server: str) -> None:
    limits = BudgetLimits(Rate(150, 5), Rate(80, 3), Rate(200, 6))
    rates = json.dumps([(rate.per_s, rate.burst) for rate in (limits.mutate, limits.read, limits.total)])
    callers = [
        subprocess.Popen([sys.executable, "-c", CALLER, redis_server, "120", rates], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    granted = sorted(call for caller in callers for call in json.loads(caller.communicate()[0]))
    assert len(granted) == 240
    for name, rate in (("mutate", limits.mutate), ("read", limits.read), ("", limits.total)):
        times = [at for at, operation_class in granted if name in ("", operation_class)]
        for first in range(len(times)):
            for last in range(first, len(times)):
                allowed = rate.per_s * (times[last] - times[first]) + rate.burst
                assert last - first + 1 <= allowed + 0.01, f"{name or 'total'}: calls {first} to {last}"
    spent_s = granted[-1][0] - granted[0][0]
    assert spent_s < 240 / 150 * 2, "and the allowance is used, not wasted"


def test_begun_nodes_first_then_arrival_over_processes(shared_client: redis.Redis) -> None:
    limits = BudgetLimits(Rate(50, 1), Rate(1, 1), Rate(1000, 10))
    one, other = (RedisBucket(shared_client, "order", limits) for _ in range(2))
    early, late, begun = (
        Place(MUTATE, FRESH),
        Place(MUTATE, FRESH),
        Place(MUTATE, BEGUN),
    )
    assert not one.attempt(early).granted
    assert not other.attempt(late).granted
    assert other.attempt(begun).waiting_mutate == 3
    order: list[Place] = []
    while len(order) < 3:
        order += [p for p in (late, early, begun) if p not in order and one.attempt(p).granted]
    assert order == [begun, early, late]


def test_mutations_draw_from_the_total_before_reads(shared_client: redis.Redis) -> None:
    bucket = RedisBucket(shared_client, "total", BudgetLimits(Rate(500, 10), Rate(500, 10), Rate(20, 1)))
    read, mutations = Place(READ, BEGUN), [Place(MUTATE, FRESH) for _ in range(5)]
    order: list[str] = []
    assert not bucket.attempt(read).granted
    for place in mutations:
        bucket.attempt(place)
    waiting = [read, *mutations]
    while waiting:
        for place in list(waiting):
            if bucket.attempt(place).granted:
                waiting.remove(place)
                order.append(str(place.operation_class))
    assert order == ["mutate"] * 5 + ["read"]


KILLED = """
import sys
from ipam.model import OperationClass
from services.worker.buckets import BudgetLimits, Place, Rate, RedisBucket
from services.worker.budget import connect
bucket = RedisBucket(connect(sys.argv[1]), "lapse", BudgetLimits(Rate(5, 1), Rate(1, 1), Rate(100, 10)))
bucket.attempt(Place(OperationClass.MUTATE, 0))
print("waiting", flush=True)
sys.stdin.read()
"""


def test_the_place_of_a_killed_worker_lapses(redis_server: str, shared_client: redis.Redis) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, redis_server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "waiting\n"
    worker.kill()
    worker.communicate()
    bucket = RedisBucket(shared_client, "lapse", BudgetLimits(Rate(5, 1), Rate(1, 1), Rate(100, 10)))
    behind = Place(MUTATE, FRESH)
    assert bucket.attempt(behind).waiting_mutate == 2
    started = time.monotonic()
    ask_until_granted(bucket, behind)
    assert 0.5 < time.monotonic() - started < 3.0


def test_a_cut_by_one_worker_holds_for_all_and_survives_none_of_them(shared_client: redis.Redis) -> None:
    limits = BudgetLimits(Rate(100, 5), Rate(100, 5), Rate(200, 10))
    one, other = (RedisBucket(shared_client, "cut", limits) for _ in range(2))
    assert one.throttled(MUTATE).cut
    assert not other.throttled(MUTATE).cut
    assert other.attempt(Place(MUTATE, FRESH)).rate_per_s == 50
    assert other.attempt(Place(READ, FRESH)).rate_per_s == 100


def test_accounts_do_not_share(shared_client: redis.Redis) -> None:
    limits = BudgetLimits(Rate(100, 5), Rate(100, 5), Rate(200, 10))
    RedisBucket(shared_client, "aws:1:r", limits).throttled(MUTATE)
    assert RedisBucket(shared_client, "aws:2:r", limits).attempt(Place(MUTATE, FRESH)).rate_per_s == 100


def test_without_redis_a_smaller_local_bucket_serves_until_redis_is_back(tmp_path: Path) -> None:
    limits = BudgetLimits(Rate(400, 20), Rate(400, 20), Rate(800, 40))
    server = RedisServer(tmp_path)
    server.start()
    client = connect(server.url)
    budget = RedisBudget(client, "aws:1:r", limits, fallback_share=0.1)
    try:
        budget.throttled(MUTATE)
        server.kill()
        waits = [budget.acquire(MUTATE, standing=Standing, deadline_s=5.0) for _ in range(12)]
        assert sum(waits) > 0.2, "40 calls a second, not 400"
        server.start()
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            budget.acquire(MUTATE, standing=Standing, deadline_s=5.0)
            if not budget.alone:
                break
        state = client.hgetall("budget:{aws:1:r}:state")
        assert float(state[b"rate_mutate"]) == 200, "the new Redis is told the rate that the cloud last allowed"
    finally:
        client.close()
        server.stop()


def test_redis_lost_while_many_wait_strands_nobody(tmp_path: Path) -> None:
    limits = BudgetLimits(Rate(20, 1), Rate(20, 1), Rate(40, 2))
    server = RedisServer(tmp_path)
    server.start()
    client = connect(server.url)
    budget = RedisBudget(client, "aws:1:r", limits, fallback_share=1.0)
    half = threading.Semaphore(0)

    def wait(_: int) -> float:
        waited_s = budget.acquire(MUTATE, standing=Standing, deadline_s=30.0)
        half.release()
        return waited_s

    try:
        with ThreadPoolExecutor(16) as threads:
            waits = threads.map(wait, range(32))
            for _ in range(8):
                assert half.acquire(timeout=10.0)
            server.kill()
            for _ in range(8):
                assert half.acquire(timeout=10.0)
            server.start()
            assert len(list(waits)) == 32
    finally:
        client.close()
        server.stop()


def test_a_clock_set_back_neither_frees_nor_strands(shared_client: redis.Redis) -> None:
    bucket = RedisBucket(shared_client, "clock", BudgetLimits(Rate(50, 1), Rate(1, 1), Rate(100, 10)))
    dead, alive = Place(MUTATE, BEGUN), Place(MUTATE, FRESH)
    bucket.attempt(dead)
    bucket.attempt(alive)
    # As if all of this had been written by a clock that was an hour ahead.
    ahead = time.time() + 3600
    shared_client.hset("budget:{clock}:state", mapping={"at": ahead})
    shared_client.zadd("budget:{clock}:lapse", {dead.ticket: ahead})
    assert not bucket.attempt(alive).granted, "time that did not pass brings no token"
    started = time.monotonic()
    ask_until_granted(bucket, alive)
    assert time.monotonic() - started < 1.0
