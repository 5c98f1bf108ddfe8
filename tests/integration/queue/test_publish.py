"""Publishing: ids only, by priority, and never in the way of its caller when Redis is gone."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from ipam.errors import Unavailable
from services.runtime.queue import CeleryQueue, broker_url, celery_app, queue_name
from services.runtime.redis import RedisServer

pytestmark = pytest.mark.redis

QUEUE = queue_name("aws", "123456789012", "eu-west-1")


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-queue-", dir="/tmp"))
    with RedisServer(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture
async def celery_queue(own_redis: RedisServer) -> AsyncIterator[CeleryQueue]:
    async with CeleryQueue(celery_app(own_redis.url, QUEUE)) as queue:
        yield queue


def keys(server: RedisServer) -> dict[str, int]:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return {key: client.llen(key) for key in client.keys(f"{QUEUE}*")}


def test_each_account_and_region_has_its_own_queue() -> None:
    assert QUEUE == "cloud.aws.123456789012.eu-west-1"


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ("unix:///run/r.sock?db=2", "redis+socket:///run/r.sock?virtual_host=2"),
        ("unix://me:p%2Fw@/run/r.sock", "redis+socket://me:p%2Fw@/run/r.sock"),
        ("unix:///run/r.sock?db=2&password=p%2Fw", "redis+socket://:p%2Fw@/run/r.sock?virtual_host=2"),
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("rediss://user:secret@host:6379/0", "rediss://user:secret@host:6379/0"),
    ],
)
def test_one_redis_url_serves_queue_and_budget(url: str, broker: str) -> None:
    assert broker_url(url) == broker


async def test_a_message_is_json_and_carries_the_intents_id_only(
    celery_queue: CeleryQueue, own_redis: RedisServer
) -> None:
    await celery_queue.enqueue("intent-1")
    with redis.Redis.from_url(own_redis.url) as client:
        message = json.loads(client.lindex(QUEUE, 0))
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == "plimsoll.perform"
    arguments, options, _ = json.loads(base64.b64decode(message["body"]))
    assert (arguments, options) == (["intent-1"], {})


async def test_priorities_have_their_own_lists(celery_queue: CeleryQueue, own_redis: RedisServer) -> None:
    await celery_queue.enqueue("urgent", priority=0)
    await celery_queue.enqueue("housekeeping", priority=9)
    assert sorted(keys(own_redis).values()) == [1, 1]
    with pytest.raises(ValueError, match="priority is 10"):
        await celery_queue.enqueue("x", priority=10)


async def test_a_short_delay_is_held_and_a_long_one_left_to_the_sweeper(
    celery_queue: CeleryQueue, own_redis: RedisServer
) -> None:
    await celery_queue.enqueue("long", delay_s=3600)
    await celery_queue.enqueue("short", delay_s=0.05)
    await celery_queue.enqueue("short", delay_s=0.1)
    assert keys(own_redis) == {}
    with redis.Redis.from_url(own_redis.url) as client:
        taken = await asyncio.to_thread(client.brpop, [QUEUE], 5)
    assert taken is not None
    assert keys(own_redis) == {}, "held once, however often it was asked for"


async def test_a_lost_redis_costs_an_error_and_no_time(celery_queue: CeleryQueue, own_redis: RedisServer) -> None:
    await celery_queue.enqueue("before")
    own_redis.kill()
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(Unavailable) as refusal:
            await celery_queue.enqueue("during")
        assert time.monotonic() - started < 0.5
        assert refusal.value.remedy
        assert refusal.value.retry_after_s is not None
    assert celery_queue.failing
    own_redis.start()
    await _until_enqueued(celery_queue, "after")
    assert keys(own_redis) == {QUEUE: 1}
    assert not celery_queue.failing


async def test_a_redis_that_hangs_does_not_stop_the_loop(celery_queue: CeleryQueue, own_redis: RedisServer) -> None:
    await celery_queue.enqueue("before")
    loop_gap_s = 0.0
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        hung = asyncio.create_task(celery_queue.enqueue("during"))
        started = last = time.monotonic()
        while not hung.done() and last - started < 10:
            await asyncio.sleep(0.01)
            loop_gap_s, last = max(loop_gap_s, time.monotonic() - last), time.monotonic()
        assert loop_gap_s < 0.5
        with pytest.raises(Unavailable):
            await hung
        assert last - started < 5
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)


async def _until_enqueued(queue: CeleryQueue, intent_id: str) -> None:
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return await queue.enqueue(intent_id)
        except Unavailable as refusal:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(refusal.retry_after_s or 0.0)
