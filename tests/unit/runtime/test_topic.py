"""A topic and its subscribers, driven through every interleaving that hypothesis thinks of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.watch import START, Batch, Mirror, Position, Subscription, Topic


async def next_batch(subscription: Subscription[Any]) -> Batch[Any] | None:
    """The next batch if there is one already."""
    task = asyncio.ensure_future(anext(subscription))
    for _ in range(3):
        await asyncio.sleep(0)
        if task.done():
            return task.result()
    task.cancel()
    return None


async def drain(subscription: Subscription[Any], mirror: Mirror[str, Any]) -> list[Batch[Any]]:
    """Applies and acknowledges everything there is."""
    await asyncio.sleep(0.001)
    batches = []
    while (batch := await next_batch(subscription)) is not None:
        mirror.apply_batch(batch)
        subscription.acknowledge(batch.position)
        batches.append(batch)
    return batches


def fresh(state: Mapping[str, Any] | None = None, **arguments: Any) -> Topic[Any]:
    topic: Topic[Any] = Topic(**{"window_s": 0.0, **arguments})
    topic.publish(state or {})
    return topic


KEYS = st.sampled_from([f"pod-{number}" for number in range(8)])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.dictionaries(KEYS, st.integers(0, 99), max_size=4), st.sets(KEYS, max_size=3)),
        st.tuples(st.just("time passes")),
        st.tuples(st.just("take"), st.integers(0, 2)),
        st.tuples(st.just("acknowledge"), st.integers(0, 2)),
        st.tuples(st.just("reconnect"), st.integers(0, 2)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(OPERATIONS, st.integers(1, 4), st.integers(0, 3), st.sampled_from([None, 1, 2]))
def test_whatever_happens_every_subscriber_ends_with_the_state_of_the_topic(
    operations: list[tuple[Any, ...]], max_batch: int, keep_deletes: int, max_unacked: int | None
) -> None:
    async def story() -> None:
        topic = fresh(max_batch=max_batch, keep_deletes=keep_deletes)
        truth: dict[str, int] = {}
        mirrors: list[Mirror[str, int]] = [Mirror() for _ in range(3)]
        subscriptions = [topic.subscribe(max_unacked=max_unacked) for _ in mirrors]
        unacked: list[list[Position]] = [[] for _ in mirrors]
        for name, *arguments in operations:
            if name == "publish":
                upserts, deletes = arguments
                topic.publish(upserts, deletes)
                truth.update(upserts)
                for key in deletes:
                    truth.pop(key, None)
                assert topic.snapshot() == truth
                assert len(topic) == len(truth)
                topic._compact()
            elif name == "time passes":
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            elif name == "take":
                who = arguments[0]
                batch = await next_batch(subscriptions[who])
                if batch is not None:
                    was_building = mirrors[who]._building is not None or batch.snapshot
                    mirrors[who].apply_batch(batch)
                    unacked[who].append(batch.position)
                    if was_building and batch.complete:
                        assert mirrors[who].state == truth, "a complete snapshot is the truth of its moment"
            elif name == "acknowledge":
                who = arguments[0]
                if unacked[who]:
                    subscriptions[who].acknowledge(unacked[who].pop(0))
            else:
                who = arguments[0]
                subscriptions[who].close()
                if mirrors[who]._building is not None:
                    mirrors[who]._building = None
                subscriptions[who] = topic.subscribe(mirrors[who].position, max_unacked=max_unacked)
                unacked[who].clear()
        for subscription, mirror, positions in zip(subscriptions, mirrors, unacked, strict=True):
            for position in positions:
                subscription.acknowledge(position)
            await drain(subscription, mirror)
            assert mirror.state == truth
            assert mirror.position == topic.position

    asyncio.run(story())


async def test_a_new_subscriber_gets_a_snapshot_in_parts_and_then_deltas() -> None:
    topic = fresh({f"pod-{number}": number for number in range(5)}, max_batch=2)
    mirror: Mirror[str, int] = Mirror()
    subscription = topic.subscribe()
    parts = await drain(subscription, mirror)
    assert [(part.snapshot, part.complete, len(part.upserts)) for part in parts] == [
        (True, False, 2),
        (False, False, 2),
        (False, True, 1),
    ]
    assert [part.position for part in parts] == [START, START, topic.position]
    topic.publish({"pod-9": 9}, ["pod-0"])
    (delta,) = await drain(subscription, mirror)
    assert (delta.snapshot, delta.complete, delta.upserts, delta.deletes) == (False, True, [9], ["pod-0"])
    assert mirror.state == topic.snapshot()


async def test_an_empty_topic_says_at_once_that_there_is_nothing() -> None:
    mirror: Mirror[str, int] = Mirror()
    mirror.state = {"left from another life": 1}
    (batch,) = await drain(fresh().subscribe(), mirror)
    assert batch.snapshot
    assert batch.complete
    assert mirror.state == {}


async def test_a_subscriber_resumes_where_it_stood() -> None:
    topic = fresh({"pod-1": 1, "pod-2": 2})
    await asyncio.sleep(0)
    stood = topic.position
    topic.publish({"pod-2": 20}, ["pod-1"])
    (batch,) = await drain(topic.subscribe(stood), Mirror())
    assert (batch.snapshot, batch.upserts, batch.deletes) == (False, [20], ["pod-1"])
    (greeting,) = await drain(topic.subscribe(topic.position), Mirror())
    assert (greeting.snapshot, greeting.upserts, greeting.deletes) == (False, [], []), "nothing new, but it is served"


@pytest.mark.parametrize(
    ("case", "epoch", "ahead"),
    [("another life of the server", "deadbeef", 0), ("a revision that was never reached", None, 5)],
)
async def test_a_position_that_means_nothing_here_gets_a_snapshot(case: str, epoch: str | None, ahead: int) -> None:
    topic = fresh({"pod-1": 1})
    await asyncio.sleep(0)
    position = Position(epoch or topic.epoch, topic.position.revision + ahead)
    (batch,) = await drain(topic.subscribe(position), Mirror())
    assert batch.snapshot, case


async def test_who_stands_before_the_forgotten_deletions_gets_a_snapshot() -> None:
    topic = fresh({f"pod-{number}": number for number in range(100)}, keep_deletes=2)
    await asyncio.sleep(0)
    stood = topic.position
    topic.publish({}, [f"pod-{number}" for number in range(99)])
    (batch,) = await drain(topic.subscribe(stood), Mirror())
    assert batch.snapshot
    assert batch.upserts == [99]


async def test_a_slow_subscriber_gets_each_key_once_however_often_it_changed() -> None:
    topic = fresh({"pod-1": 0})
    subscription, mirror = topic.subscribe(), Mirror[str, int]()
    await drain(subscription, mirror)
    for number in range(1, 5001):
        topic.publish({"pod-1": number})
        if number % 500 == 0:
            await asyncio.sleep(0)
    (batch,) = await drain(subscription, mirror)
    assert batch.upserts == [5000]
    assert len(topic._log_keys) < 1100, "the log of changes does not grow with them"


async def test_subscribers_at_the_same_cursor_share_one_encoding() -> None:
    encoded: list[Batch[int]] = []

    def encode(batch: Batch[int]) -> bytes:
        encoded.append(batch)
        return b"x"

    topic = fresh({"pod-1": 1}, encode=encode)
    streams = [topic.subscribe().encoded() for _ in range(50)]
    assert [await anext(stream) for stream in streams] == [b"x"] * 50
    topic.publish({"pod-2": 2})
    assert await asyncio.gather(*(anext(stream) for stream in streams)) == [b"x"] * 50
    assert len(encoded) == 2


async def test_changes_within_the_window_travel_together() -> None:
    topic = fresh(window_s=0.02)
    subscription = topic.subscribe()
    await anext(subscription)
    topic.publish({"pod-0": 0})
    first = await anext(subscription)
    assert first.upserts == [0], "the first change after a quiet time goes out at once"
    for number in range(1, 4):
        topic.publish({f"pod-{number}": number})
        await asyncio.sleep(0)
    assert (await anext(subscription)).upserts == [1, 2, 3]


async def test_no_more_than_the_allowed_batches_are_under_way() -> None:
    topic = fresh({f"pod-{number}": number for number in range(6)}, max_batch=2)
    subscription = topic.subscribe(max_unacked=2)
    first, second = await next_batch(subscription), await next_batch(subscription)
    assert first is not None
    assert second is not None
    assert await next_batch(subscription) is None, "the third waits for an acknowledgement"
    subscription.acknowledge(first.position)
    third = await next_batch(subscription)
    assert third is not None
    assert third.complete


async def test_errors_of_a_subscriber_stand_until_it_says_otherwise() -> None:
    topic = fresh({"pod-1": 1})
    subscription = topic.subscribe(name="node-1")
    batch = await anext(subscription)
    subscription.acknowledge(batch.position, {"pod-1": "no such interface"})
    (status,) = topic.subscribers
    assert (status.name, status.acked, status.errors) == ("node-1", 1, {"pod-1": "no such interface"})
    subscription.acknowledge(batch.position)
    assert topic.subscribers[0].errors == {}


async def test_closing_ends_a_subscriber_that_waits() -> None:
    topic = fresh()
    subscription = topic.subscribe()
    await anext(subscription)
    waiting = asyncio.ensure_future(anext(subscription, None))
    await asyncio.sleep(0)
    subscription.close()
    assert await waiting is None
    assert topic.subscribers == []


async def test_a_snapshot_completes_although_its_keys_keep_changing() -> None:
    topic = fresh({f"pod-{number}": 0 for number in range(64)}, max_batch=2)
    subscription, mirror = topic.subscribe(), Mirror[str, int]()
    for turn in range(60):
        topic.publish({f"pod-{number}": turn for number in range(64)})
        batch = await anext(subscription)
        mirror.apply_batch(batch)
        if batch.complete:
            break
    assert mirror.state == topic.snapshot()


async def test_replace_publishes_only_what_differs() -> None:
    topic = fresh({"pod-1": 1, "pod-2": 2})
    subscription = topic.subscribe()
    await anext(subscription)
    topic.replace({"pod-2": 2, "pod-3": 3})
    batch = await anext(subscription)
    assert (batch.keys, batch.deletes) == (["pod-3"], ["pod-1"])
