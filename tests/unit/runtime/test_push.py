"""A subscription's batches are pushed in their order by a task that ends whenever there is nothing to send."""

from __future__ import annotations

import asyncio

from services.runtime.push import Push
from services.runtime.watch import Batch, Topic


class Peer:
    """Takes what is sent; each batch only when it is let through."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.let = asyncio.Semaphore(0)
        self.ended = 0
        self.broken = False
        self.came = asyncio.Event()

    async def send(self, wire: bytes) -> None:
        await self.let.acquire()
        if self.broken:
            raise ConnectionError("gone")
        self.got.append(wire)
        self.came.set()

    def end(self) -> None:
        self.ended += 1
        self.came.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self.came.clear()
                await self.came.wait()


def topic_of(**values: str) -> Topic[str]:
    topic: Topic[str] = Topic(encode, window_s=0)
    topic.publish(values)
    return topic


def encode(batch: Batch[str]) -> bytes:
    return ",".join([*batch.upserts, *(f"-{key}" for key in batch.deletes)]).encode()


async def turns() -> None:
    """Lets the loop do all that is due now, and what follows from it."""
    for _ in range(5):
        await asyncio.sleep(0)


def tasks() -> int:
    return len(asyncio.all_tasks())


async def test_an_idle_stream_has_no_task_and_news_are_sent_in_order() -> None:
    before, topic, peer = tasks(), topic_of(a="1"), Peer()
    Push(topic.subscribe(), peer.send, peer.end)
    peer.let.release()
    await peer.until(1)
    await asyncio.sleep(0)
    assert tasks() == before
    topic.publish({"b": "2"})
    await turns()
    topic.publish({"c": "3"})
    topic.publish({"b": "4"}, deletes=["a"])
    for _ in range(3):
        peer.let.release()
    await peer.until(3)
    assert peer.got == [b"1", b"2", b"3,4,-a"], "what came while one was being sent is sent at once"
    assert not peer.ended


async def test_the_stream_is_ended_once_when_the_subscription_is_closed() -> None:
    topic, peer = topic_of(), Peer()
    push = Push(topic.subscribe(), peer.send, peer.end)
    peer.let.release()
    await peer.until(1)
    topic.close()
    await turns()
    assert (peer.ended, push.error) == (1, None)
    topic.publish({"a": "1"})
    push.stop()
    await turns()
    assert (peer.ended, len(peer.got)) == (1, 1)


async def test_a_peer_that_takes_no_more_ends_the_stream() -> None:
    topic, peer = topic_of(a="1"), Peer()
    peer.broken = True
    push = Push(topic.subscribe(), peer.send, peer.end)
    peer.let.release()
    async with asyncio.timeout(5):
        await peer.came.wait()
    assert (peer.ended, push.error) == (1, None)


async def test_what_cannot_be_encoded_ends_the_stream_and_says_why() -> None:
    def fails(batch: Batch[str]) -> bytes:
        raise ValueError("no such field")

    topic, peer = Topic[str](fails, window_s=0), Peer()
    push = Push(topic.subscribe(), peer.send, peer.end)
    await turns()
    assert peer.ended == 1
    assert isinstance(push.error, ValueError)


async def test_nothing_is_sent_or_told_after_it_was_stopped() -> None:
    before, topic, peer = tasks(), topic_of(a="1"), Peer()
    push = Push(topic.subscribe(), peer.send, peer.end)
    await asyncio.sleep(0)  # it waits for the peer
    push.stop()
    topic.close()
    await turns()
    assert (peer.got, peer.ended, tasks()) == ([], 0, before)
