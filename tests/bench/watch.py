"""Watch fan-out: 10,000 endpoint updates to 200 gRPC streams on one machine.

A server process publishes the updates in bursts of 100, as nodes report them; a second process holds the streams and
reads until each has seen the last revision. The baseline, in the same run, sends each update as a message of its own,
encoded for each stream; it is measured with a fifth of the updates and counted five times, which favours it.
CPU is that of the server process; bytes are those of the messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvloop

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.api.watch.v1 import watch_pb2
from services.runtime import logging
from services.runtime.client import aio_channel
from services.runtime.server import GrpcServer, allow
from services.runtime.settings import ServiceSettings
from services.runtime.watch import Batch, Position, Topic
from tests.bench.report import Row

SERVICE = "plimsoll.registry.v1.RegistryService"
BURST = 100
NAIVE_PART = 5


def endpoint(number: int) -> registry_pb2.Endpoint:
    return registry_pb2.Endpoint(
        id=f"{number:064x}/eth0",
        node=f"node-{number % 200}",
        pod=f"default/web-{number}",
        addresses=[f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"],
        mac="02:00:00:00:00:01",
        interface_id=f"eni-{number % 600:017x}",
        labels={"app": "web", "tier": "front"},
    )


def encode(batch: Batch[registry_pb2.Endpoint]) -> bytes:
    return registry_pb2.WatchResponse(header=batch.header(), endpoints=batch.upserts).SerializeToString()


class Shared(registry_pb2_grpc.RegistryServiceServicer):
    """Streams of one topic."""

    def __init__(self) -> None:
        self.topic: Topic[registry_pb2.Endpoint] = Topic(encode)
        self.opened = 0
        self.sent_bytes = 0
        self.messages = 0

    async def Watch(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await anext(requests)
        self.opened += 1
        async with self.topic.subscribe() as subscription:
            async for data in subscription.encoded():
                self.sent_bytes += len(data)
                self.messages += 1
                yield data

    async def publish(self, updates: int) -> None:
        for start in range(0, updates, BURST):
            self.topic.publish({f"pod-{n}": endpoint(n) for n in range(start, min(start + BURST, updates))})
            await asyncio.sleep(0)


class Naive(Shared):
    """A queue for each stream, a message for each update, encoded for each stream."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: list[asyncio.Queue[tuple[int, registry_pb2.Endpoint]]] = []

    async def Watch(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        await anext(requests)
        queue: asyncio.Queue[tuple[int, registry_pb2.Endpoint]] = asyncio.Queue()
        self._queues.append(queue)
        self.opened += 1
        while True:
            revision, update = await queue.get()
            position = Position("naive", revision).to_proto()
            header = watch_pb2.Header(position=position, complete=True)
            message = registry_pb2.WatchResponse(header=header, endpoints=[update])
            data = message.SerializeToString()
            self.sent_bytes += len(data)
            self.messages += 1
            yield data

    async def publish(self, updates: int) -> None:
        for number in range(updates):
            update = endpoint(number)
            for queue in self._queues:
                queue.put_nowait((number + 1, update))
            if number % BURST == BURST - 1:
                await asyncio.sleep(0)


async def subscribers(target: str, streams: int, updates: int) -> None:
    """Holds the streams of this process until each has seen everything; a channel for each 20 streams."""

    async def follow(stub: Any) -> int:
        call = stub.Watch()
        await call.write(registry_pb2.WatchRequest(open=registry_pb2.WatchRequest.Open(subscribe=True)))
        seen = 0
        async for message in call:
            seen += len(message.endpoints)
            if message.header.position.revision >= updates:
                call.cancel()
                return seen
        return seen

    channels = [aio_channel(target, None) for _ in range(-(-streams // 20))]
    stubs = [registry_pb2_grpc.RegistryServiceStub(channel) for channel in channels]
    seen = await asyncio.gather(*(follow(stubs[number % len(stubs)]) for number in range(streams)))
    for channel in channels:
        await channel.close()
    if min(seen) < updates:
        raise RuntimeError(f"a stream saw {min(seen)} of {updates} updates")


def run_subscribers(target: str, streams: int, updates: int) -> None:
    uvloop.run(subscribers(target, streams, updates))


async def measure(kind: Callable[[], Shared], streams: int, updates: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="pl-") as folder:
        path = Path(folder) / "bench.sock"
        handlers = kind()
        server = GrpcServer(ServiceSettings(socket=path), policy={f"/{SERVICE}/*": allow()})
        server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, handlers, SERVICE)
        async with server:
            child = multiprocessing.get_context("spawn").Process(
                target=run_subscribers, args=(f"unix:{path}", streams, updates)
            )
            child.start()
            while handlers.opened < streams:
                if not child.is_alive():
                    raise RuntimeError("the subscribers died")
                await asyncio.sleep(0.01)
            before = resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            await handlers.publish(updates)
            await asyncio.to_thread(child.join)
            wall_s = time.perf_counter() - began
            after = resource.getrusage(resource.RUSAGE_SELF)
            if child.exitcode != 0:
                raise RuntimeError("the subscribers failed")
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall_s": wall_s, "cpu_s": cpu_s, "bytes": handlers.sent_bytes, "messages": handlers.messages}


def measure_in_child(variant: str, streams: int, updates: int) -> dict[str, float]:
    """Each variant in a process of its own, so that neither inherits the other's memory and threads."""
    argv = [sys.executable, "-m", "tests.bench.watch", "--variant", variant]
    argv += ["--streams", str(streams), "--updates", str(updates)]
    return dict(json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout))


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench.watch")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--variant", choices=("shared", "naive"))
    options, _ = parser.parse_known_args(argv)
    if options.variant:
        kind = {"shared": Shared, "naive": Naive}[options.variant]
        logging.configure("bench", level="error")
        json.dump(uvloop.run(measure(kind, options.streams, options.updates)), sys.stdout)
        return []
    shared = measure_in_child("shared", options.streams, options.updates)
    part = measure_in_child("naive", options.streams, max(options.updates // NAIVE_PART, 1))
    naive = {key: value * NAIVE_PART for key, value in part.items()}
    name = f"watch: {options.updates:,} updates to {options.streams} streams"
    return [
        Row(f"{name}, wall", shared["wall_s"], "s", naive["wall_s"], target="ratio <= 0.2"),
        Row(f"{name}, CPU of the server", shared["cpu_s"], "s", naive["cpu_s"], target="ratio <= 0.1"),
        Row(f"{name}, messages", shared["messages"], "messages", naive["messages"]),
        Row(f"{name}, bytes", shared["bytes"] / 1e6, "MB", naive["bytes"] / 1e6, target="ratio <= 1"),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
