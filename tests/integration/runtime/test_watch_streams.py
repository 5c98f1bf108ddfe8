"""Watch streams over real gRPC: a follower stays in step with a topic through restarts, cuts and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.api.watch.v1 import watch_pb2
from services.runtime.client import aio_channel
from services.runtime.server import GrpcServer, allow
from services.runtime.settings import ServiceSettings, TlsSettings
from services.runtime.watch import Batch, Follower, FollowState, Mirror, Position, Topic, follow
from tests.streams import read

SERVICE = "plimsoll.registry.v1.RegistryService"


def encode(batch: Batch[registry_pb2.Node]) -> bytes:
    response = registry_pb2.WatchResponse(header=batch.header(), nodes=batch.upserts, deleted_nodes=batch.deletes)
    return response.SerializeToString()


class Watched(registry_pb2_grpc.RegistryServiceServicer):
    """The handler that every service writes: open, then batches out and acknowledgements in."""

    def __init__(self) -> None:
        self.topic: Topic[registry_pb2.Node] = Topic(encode, max_batch=3, window_s=0.0)
        self.opened: list[Position] = []
        self.heartbeats = 0

    def put(self, *names: str) -> None:
        self.topic.publish({name: registry_pb2.Node(name=name) for name in names})

    async def Watch(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        opening = (await anext(requests)).open
        self.opened.append(Position.from_proto(opening.position))
        async with self.topic.subscribe(self.opened[-1], name=opening.node.name, max_unacked=2) as subscription:
            reader = asyncio.create_task(self._read(requests, subscription))
            try:
                async for data in subscription.encoded():
                    yield data
            finally:
                reader.cancel()

    async def _read(self, requests: Any, subscription: Any) -> None:
        async for request in requests:
            if request.HasField("ack"):
                errors = {error.key: error.reason for error in request.ack.errors}
                subscription.acknowledge(Position.from_proto(request.ack.position), errors)
            else:
                self.heartbeats += 1


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Watched]:
    handlers = Watched()  # type: ignore[abstract]
    server = GrpcServer(ServiceSettings(socket=path), policy={f"/{SERVICE}/*": allow()})
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, handlers, SERVICE)
    async with server:
        yield handlers


class Node:
    """The other end: a follower that keeps a mirror."""

    def __init__(self, channel: grpc.aio.Channel, name: str = "node-1") -> None:
        self.mirror: Mirror[str, registry_pb2.Node] = Mirror()
        self.failing: dict[str, str] = {}
        self.broken = False
        self._stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        self._name = name
        self._applied = asyncio.Event()
        self.follower: Follower[registry_pb2.WatchRequest, registry_pb2.WatchResponse] = Follower(
            "registry",
            self._open,
            self._apply,
            lambda ack: registry_pb2.WatchRequest(ack=ack),
            on_state=lambda _state: self._applied.set(),
            backoff_s=(0.01, 0.05),
        )

    async def _open(self, position: Position) -> Any:
        call = self._stub.Watch()
        opening = registry_pb2.WatchRequest.Open(node=registry_pb2.Node(name=self._name), position=position.to_proto())
        await call.write(registry_pb2.WatchRequest(open=opening))
        return call

    async def _apply(self, message: registry_pb2.WatchResponse) -> Mapping[str, str]:
        if self.broken:
            self.broken = False
            raise OSError("netlink said no")
        upserts = {node.name: node for node in message.nodes}
        self.mirror.apply(message.header, upserts, list(message.deleted_nodes))
        self._applied.set()
        return self.failing

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._applied.clear()
                try:
                    await asyncio.wait_for(self._applied.wait(), 0.05)
                except TimeoutError:
                    continue

    async def until_names(self, *names: str) -> None:
        await self.until(lambda: set(self.mirror.state) == set(names))


@pytest.fixture
async def node(socket_folder: Path) -> AsyncIterator[Node]:
    async with aio_channel(f"unix:{socket_folder}/watch.sock", None) as channel:
        node = Node(channel)
        task = asyncio.create_task(node.follower.run())
        try:
            yield node
        finally:
            task.cancel()


@pytest.fixture
def watch_path(socket_folder: Path) -> Path:
    return socket_folder / "watch.sock"


async def test_a_follower_gets_the_snapshot_in_parts_then_changes(node: Node, watch_path: Path) -> None:
    async with serving(watch_path) as server:
        server.put("a", "b", "c", "d", "e", "f", "g")
        await node.until_names("a", "b", "c", "d", "e", "f", "g")
        server.topic.publish({"h": registry_pb2.Node(name="h")}, ["a"])
        await node.until_names("b", "c", "d", "e", "f", "g", "h")
        revision = server.topic.position.revision
        await node.until(lambda: server.topic.subscribers[0].acked == revision)
        assert node.follower.state.connected


async def test_a_cut_stream_resumes_where_it_stood(node: Node, watch_path: Path) -> None:
    async with serving(watch_path) as server:
        server.put("a", "b")
        await node.until_names("a", "b")
        stood = server.topic.position
        assert node.follower._call is not None
        node.follower._call.cancel()
        server.put("c")
        await node.until_names("a", "b", "c")
        await node.until(lambda: len(server.opened) == 2)
        assert server.opened[1].epoch == stood.epoch
        assert server.opened[1].revision >= stood.revision


async def test_another_life_of_the_server_means_a_snapshot_and_nothing_stale_is_left(
    node: Node, watch_path: Path
) -> None:
    async with serving(watch_path) as server:
        server.put("a", "b", "c", "d")
        await node.until_names("a", "b", "c", "d")
        epoch = server.topic.epoch
    await node.until(lambda: not node.follower.state.connected)
    assert node.follower.state.last_error
    assert set(node.mirror.state) == {"a", "b", "c", "d"}, "a lost server changes nothing"
    async with serving(watch_path) as server:
        server.put("b", "x")
        await node.until_names("b", "x")
        assert server.opened[0].epoch == epoch
        assert node.follower.position.epoch == server.topic.epoch
        assert node.follower.state.connected
        assert node.follower.state.last_error == ""


async def test_what_could_not_be_applied_is_sent_again(node: Node, watch_path: Path) -> None:
    async with serving(watch_path) as server:
        await node.until(lambda: node.follower.state.connected)
        node.broken = True
        server.put("a")
        await node.until_names("a")
        assert len(server.opened) == 2


async def test_errors_of_single_objects_reach_the_server(node: Node, watch_path: Path) -> None:
    async with serving(watch_path) as server:
        node.failing = {"a": "no such interface"}
        server.put("a")
        await node.until_names("a")
        await node.until(lambda: server.topic.subscribers[0].errors == {"a": "no such interface"})
        assert server.topic.subscribers[0].name == "node-1"


async def test_others_write_on_the_same_stream(node: Node, watch_path: Path) -> None:
    heartbeat = registry_pb2.WatchRequest(heartbeat=registry_pb2.WatchRequest.Heartbeat())
    assert not await node.follower.send(heartbeat), "there is no stream yet"
    async with serving(watch_path) as server:
        await node.until(lambda: node.follower.state.connected)
        assert all(await asyncio.gather(*(node.follower.send(heartbeat) for _ in range(20))))
        await node.until(lambda: server.heartbeats == 20)
    await node.until(lambda: not node.follower.state.connected)
    assert not await node.follower.send(heartbeat)


async def test_a_subscriber_that_does_not_read_costs_the_server_nothing(watch_path: Path) -> None:
    async with serving(watch_path) as server, aio_channel(f"unix:{watch_path}", None) as channel:
        call = registry_pb2_grpc.RegistryServiceStub(channel).Watch()
        opening = registry_pb2.WatchRequest.Open(node=registry_pb2.Node(name="sleeper"))
        await call.write(registry_pb2.WatchRequest(open=opening))
        first = await read(call, registry_pb2.WatchResponse)
        for number in range(3000):
            server.put(f"pod-{number % 10}", f"other-{number % 7}")
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert len(server.topic._log_keys) < 1100
        mirror: Mirror[str, registry_pb2.Node] = Mirror()
        message = first
        while True:
            mirror.apply(message.header, {node.name: node for node in message.nodes}, list(message.deleted_nodes))
            ack = watch_pb2.Ack(position=message.header.position)
            await call.write(registry_pb2.WatchRequest(ack=ack))
            if mirror.position == server.topic.position:
                break
            message = await read(call, registry_pb2.WatchResponse)
        assert set(mirror.state) == set(server.topic.snapshot())
        call.cancel()


async def test_certificates_that_are_missing_are_named_and_waited_for(tmp_path: Path) -> None:
    tls = TlsSettings(ca=tmp_path / "ca.pem", certificate=tmp_path / "node.pem", key=tmp_path / "node-key.pem")
    told: asyncio.Queue[FollowState] = asyncio.Queue()

    async def open_stream(position: Position) -> Any:
        return registry_pb2_grpc.RegistryServiceStub(aio_channel("127.0.0.1:1", tls, "service/registry")).Watch()

    async def apply(response: registry_pb2.WatchResponse) -> Mapping[str, str] | None:
        return None

    with capture_logs() as logs:
        following = asyncio.create_task(follow("registry", open_stream, apply, on_state=told.put_nowait))
        first, second = await told.get(), await told.get()
        following.cancel()
        await asyncio.wait([following])
    assert not second.connected
    assert "ca.pem" in first.last_error
    assert "plimsoll pki issue" in first.last_error
    assert [(each["log_level"], each["event"]) for each in logs] == [("info", "watch stream down")], "said once"
