"""Nodes that follow a real registry, on its real store and transport, while it stops, starts and loses its memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from datapath.identities.model import ClusterEndpoint, ClusterState, EndpointKey
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.node.clients import RegistryClient
from services.registry.handlers import POLICY, SERVICE, RegistryHandlers
from services.registry.service import Fact, Registry
from services.registry.settings import Settings
from services.registry.store import SqlRegistryStore
from services.registry.wire import encode_batch
from services.runtime.client import aio_channel
from services.runtime.clock import SystemClock
from services.runtime.server import GrpcServer
from services.runtime.store import migrate, open_database
from services.runtime.watch import Topic


class LiveRegistry:
    """A registry on a Unix socket, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.target = f"unix:{folder}/registry.sock"
        self.store = folder / "registry.db"
        self._settings = Settings(socket=folder / "registry.sock", listen="")
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        database = await self._stack.enter_async_context(open_database(f"sqlite:///{self.store}"))
        await migrate(database, "services.registry.migrations")
        topic: Topic[Fact] = Topic(encode_batch)
        registry = Registry(SqlRegistryStore(database), topic, SystemClock(), lost_after_s=30)
        await registry.start()
        server = GrpcServer(self._settings, policy=POLICY)
        handlers = RegistryHandlers(registry, topic)
        server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, handlers, SERVICE)
        await self._stack.enter_async_context(server)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def identities(self) -> dict[int, dict[str, str]]:
        async with aio_channel(self.target, None) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            answer = await stub.ListIdentities(registry_pb2.ListIdentitiesRequest())
            return {one.number: dict(one.labels) for one in answer.identities}


class Follower:
    """A node's client, and what it held each time that it was told something."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.pods: dict[str, registry_pb2.Endpoint] = {}
        self.states: list[ClusterState] = []
        self.held: dict[EndpointKey, ClusterEndpoint] = {}
        self.fail_next = False
        self.changed = asyncio.Event()
        self.client = RegistryClient(
            target, lambda: aio_channel(target, None), registry_pb2.Node(name=name, pod_cidrs=["10.1.0.0/24"]),
            endpoints=lambda: list(self.pods.values()), changed=self.changed, heartbeat_s=0.5, take=self._take,
            doubt_s=30.0,
        )  # fmt: skip
        self.task = asyncio.create_task(self.client.run())

    def add(self, id: str, address: str, app: str = "web") -> None:
        labels = {"app": app, "io.kubernetes.pod.name": id}
        self.pods[id] = registry_pb2.Endpoint(id=id, node=self.name, addresses=[address], labels=labels)
        self.changed.set()

    def remove(self, id: str) -> None:
        del self.pods[id]
        self.changed.set()

    async def _take(self, state: ClusterState) -> None:
        if self.fail_next:
            self.fail_next = False
            raise OSError("the map is full")
        for key, change in state.endpoint_changes.items():
            assert self.held.get(key) == change.before
            if change.after is None:
                del self.held[key]
            else:
                self.held[key] = change.after
        assert self.held == state.endpoints
        self.states.append(state)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def live_registry(tmp_path: Path) -> AsyncIterator[LiveRegistry]:
    registry = LiveRegistry(tmp_path)
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
async def following(live_registry: LiveRegistry) -> AsyncIterator[tuple[Follower, Follower]]:
    """Two nodes that know each other, with a pod each."""
    one, two = Follower("node-1", live_registry.target), Follower("node-2", live_registry.target)
    one.add("a", "10.1.0.5")
    two.add("b", "10.1.1.5")
    yield one, two
    for follower in (one, two):
        follower.task.cancel()
    await asyncio.wait([one.task, two.task])


async def test_nodes_learn_of_each_others_pods_with_one_identity(
    live_registry: LiveRegistry, following: tuple[Follower, Follower]
) -> None:
    one, two = following
    await until(lambda: len(one.held) == len(two.held) == 2)
    assert one.held == two.held
    assert {endpoint.identity for endpoint in one.held.values()} == {256}
    assert await live_registry.identities() == {256: {"app": "web"}}, "the pod's name makes no identity"
    assert one.client.cluster.identity_of(("node-1", "a")) == 256
    assert one.states[-1].nodes["node-2"].pod_cidrs == ("10.1.0.0/24",)
    two.add("c", "10.1.1.6", app="db")
    await until(lambda: ("node-2", "c") in one.held)
    assert list(one.states[-1].endpoint_changes) == [("node-2", "c")], "and nothing else"
    assert one.held["node-2", "c"].identity == 257
    two.remove("c")
    await until(lambda: ("node-2", "c") not in one.held)


async def test_a_registry_that_restarts_changes_nothing_and_what_happened_meanwhile_arrives(
    live_registry: LiveRegistry, following: tuple[Follower, Follower]
) -> None:
    one, two = following
    await until(lambda: len(one.held) == len(two.held) == 2)
    states, before = len(one.states), dict(one.held)
    await live_registry.stop()
    await until(lambda: not one.client.state.connected)
    assert one.held == before, "the last state stays"
    await live_registry.start()
    await until(lambda: one.client.state.connected and two.client.state.connected)
    two.add("c", "10.1.1.6")
    await until(lambda: ("node-2", "c") in one.held)
    changed = [key for state in one.states[states:] for key in state.endpoint_changes]
    assert changed == [("node-2", "c")]
    assert not any(state.node_changes or state.whole for state in one.states[states:])
    assert one.held["node-2", "c"].identity == before["node-1", "a"].identity


async def test_a_registry_that_lost_its_store_takes_no_running_pod_away(
    live_registry: LiveRegistry, following: tuple[Follower, Follower]
) -> None:
    one, two = following
    await until(lambda: len(one.held) == len(two.held) == 2)
    states = len(one.states)
    await live_registry.stop()
    for file in live_registry.store.parent.glob("registry.db*"):
        file.unlink()
    await live_registry.start()
    await until(lambda: one.client.state.connected and two.client.state.connected)
    two.add("c", "10.1.1.6")
    await until(lambda: ("node-2", "c") in one.held)
    gone = [key for state in one.states[states:] for key, change in state.endpoint_changes.items() if not change.after]
    assert gone == []


async def test_what_could_not_be_brought_into_force_comes_again(following: tuple[Follower, Follower]) -> None:
    one, two = following
    await until(lambda: len(one.held) == len(two.held) == 2)
    one.fail_next = True
    two.add("c", "10.1.1.6")
    await until(lambda: ("node-2", "c") in one.held)
    assert not one.fail_next
