"""The registry's decisions, with a clock that the test owns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from services.registry.errors import NodeAlive, NotFound, SessionReplaced
from services.registry.model import Endpoint, Node, NodeState
from services.registry.service import Fact, Registry, Session
from services.registry.testing import FakeClock, MemoryStore
from services.runtime.watch import Topic

LOST_AFTER_S = 30.0


@dataclass
class World:
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: FakeClock = field(default_factory=FakeClock)
    topic: Topic[Fact] = field(default_factory=Topic)

    def __post_init__(self) -> None:
        self.registry = Registry(self.store, self.topic, self.clock, lost_after_s=LOST_AFTER_S)

    async def restart(self) -> None:
        self.topic = Topic()
        self.__post_init__()
        await self.registry.start()

    def state(self, name: str) -> NodeState:
        told = self.topic.get(f"node/{name}")
        assert isinstance(told, Node)
        assert told.state == self.registry.node(name).state
        return told.state

    def watched(self, node: str) -> set[str]:
        return {fact.id for fact in self.topic.snapshot().values() if isinstance(fact, Endpoint) and fact.node == node}


@pytest.fixture
async def world() -> World:
    world = World()
    await world.registry.start()
    return world


def endpoint(id: str, *addresses: str) -> Endpoint:
    return Endpoint("node-1", id, addresses=addresses or ("10.0.0.1",))


async def stored_endpoints(world: World) -> set[str]:
    return {one.id for one in (await world.store.load()).endpoints}


async def test_a_node_registers_and_is_told_and_stored(world: World) -> None:
    await world.registry.open(Node("node-1", ("10.0.0.10",), {"rack": "7"}))
    (stored,) = (await world.store.load()).nodes
    assert (stored.name, stored.state, stored.registered_at) == ("node-1", NodeState.READY, world.clock.now())
    assert world.state("node-1") is NodeState.READY


async def test_the_same_node_again_is_no_news(world: World) -> None:
    await world.registry.open(Node("node-1"))
    position, writes = world.topic.position, len(world.store.written)
    world.clock.advance(5)
    await world.registry.open(Node("node-1"))
    assert (world.topic.position, len(world.store.written)) == (position, writes)


async def test_a_node_that_changed_is_news_and_keeps_its_registration(world: World) -> None:
    await world.registry.open(Node("node-1"))
    registered_at = world.registry.node("node-1").registered_at
    world.clock.advance(5)
    await world.registry.open(Node("node-1", labels={"rack": "8"}))
    told = world.topic.get("node/node-1")
    assert isinstance(told, Node)
    assert (told.labels, told.registered_at) == ({"rack": "8"}, registered_at)


async def test_a_silent_node_is_lost_at_its_time_and_its_endpoints_stay(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [endpoint("pod-1/eth0")])
    world.clock.advance(LOST_AFTER_S - 1)
    assert await world.registry.sweep() == pytest.approx(1)
    assert world.state("node-1") is NodeState.READY
    world.clock.advance(1)
    await world.registry.sweep()
    assert world.state("node-1") is NodeState.LOST
    assert world.watched("node-1") == {"pod-1/eth0"}
    assert [node.state for node in (await world.store.load()).nodes] == [NodeState.LOST]


@pytest.mark.parametrize(
    "sign_of_life",
    [
        pytest.param(lambda world, session: world.registry.heartbeat(session), id="a heartbeat"),
        pytest.param(lambda world, session: world.registry.report(session, [endpoint("pod-1/eth0")]), id="a report"),
        pytest.param(lambda world, session: world.registry.open(Node("node-1")), id="a new stream"),
    ],
)
async def test_a_lost_node_comes_back_by(
    world: World, sign_of_life: Callable[[World, Session], Awaitable[object]]
) -> None:
    session = await world.registry.open(Node("node-1"))
    world.clock.advance(LOST_AFTER_S)
    await world.registry.sweep()
    await sign_of_life(world, session)
    assert world.state("node-1") is NodeState.READY
    assert [node.state for node in (await world.store.load()).nodes] == [NodeState.READY]


async def test_heartbeats_keep_a_node_whatever_the_wall_clock_does(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    for jump_s in (86400, -172800, 3600):
        world.clock.jump(jump_s)
        world.clock.advance(LOST_AFTER_S - 1)
        await world.registry.heartbeat(session)
        await world.registry.sweep()
        assert world.state("node-1") is NodeState.READY


async def test_heartbeats_are_neither_written_nor_told_one_by_one(world: World) -> None:
    sessions = [await world.registry.open(Node(f"node-{n}")) for n in range(3)]
    await world.registry.write_heartbeats()
    position, writes = world.topic.position, len(world.store.written)
    for _ in range(10):
        world.clock.advance(1)
        for session in sessions:
            await world.registry.heartbeat(session)
    assert (world.topic.position, len(world.store.written)) == (position, writes)
    await world.registry.write_heartbeats()
    assert len(world.store.written) == writes + 1
    assert {node.heartbeat_at for node in (await world.store.load()).nodes} == {world.clock.now()}


async def test_heartbeats_that_could_not_be_written_are_written_later(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    world.clock.advance(1)
    await world.registry.heartbeat(session)
    world.store.fail = OSError("disk")
    with pytest.raises(OSError, match="disk"):
        await world.registry.write_heartbeats()
    await world.registry.write_heartbeats()
    assert (await world.store.load()).nodes[0].heartbeat_at == world.clock.now()


async def test_reports_story(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    one, two, three = (endpoint(f"pod-{n}/eth0") for n in (1, 2, 3))
    rows: list[tuple[str, list[Endpoint], list[str], bool, set[str]]] = [
        ("the whole list", [one, two], [], True, {one.id, two.id}),
        ("one more", [three], [], False, {one.id, two.id, three.id}),
        ("one less", [], [one.id], False, {two.id, three.id}),
        ("one that is not there", [], ["pod-9/eth0"], False, {two.id, three.id}),
        ("one that is deleted and made again", [two], [two.id], False, {two.id, three.id}),
        ("another whole list", [one], [], True, {one.id}),
        ("an empty whole list", [], [], True, set()),
    ]
    for what, upserted, deleted, replace_all, expected in rows:
        await world.registry.report(session, upserted, deleted, replace_all=replace_all)
        assert world.watched("node-1") == expected, what
        assert set(world.registry.endpoints["node-1"]) == expected, what
        assert await stored_endpoints(world) == expected, what


async def test_the_same_report_again_is_no_news(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [endpoint("pod-1/eth0")], replace_all=True)
    position, writes = world.topic.position, len(world.store.written)
    await world.registry.report(session, [endpoint("pod-1/eth0")], replace_all=True)
    assert (world.topic.position, len(world.store.written)) == (position, writes)


async def test_what_could_not_be_written_is_not_told(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    world.store.fail = OSError("disk")
    with pytest.raises(OSError, match="disk"):
        await world.registry.report(session, [endpoint("pod-1/eth0")])
    assert world.watched("node-1") == set()
    await world.registry.report(session, [endpoint("pod-1/eth0")])
    assert world.watched("node-1") == {"pod-1/eth0"}


async def test_a_newer_stream_replaces_the_older(world: World) -> None:
    older = await world.registry.open(Node("node-1"))
    ended: list[str] = []
    older.end = lambda: ended.append("older")
    newer = await world.registry.open(Node("node-1"))
    assert ended == ["older"]
    for late in (world.registry.heartbeat(older), world.registry.report(older, [endpoint("pod-1/eth0")])):
        with pytest.raises(SessionReplaced):
            await late
    await world.registry.report(newer, [endpoint("pod-2/eth0")])
    assert world.watched("node-1") == {"pod-2/eth0"}


async def test_a_node_is_deleted_only_when_lost(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [endpoint("pod-1/eth0")])
    with pytest.raises(NodeAlive) as alive:
        await world.registry.delete("node-1")
    assert alive.value.retry_after_s == LOST_AFTER_S
    world.clock.advance(LOST_AFTER_S)
    await world.registry.sweep()
    await world.registry.delete("node-1")
    assert len(world.topic) == 0
    assert (await world.store.load()).nodes == []
    assert await stored_endpoints(world) == set()
    with pytest.raises(SessionReplaced):
        await world.registry.heartbeat(session)
    with pytest.raises(NotFound):
        await world.registry.delete("node-1")
    await world.registry.open(Node("node-1"))
    assert world.watched("node-1") == set()


async def test_a_restart_resumes_and_gives_every_node_its_time_again(world: World) -> None:
    session = await world.registry.open(Node("node-1", labels={"rack": "7"}))
    await world.registry.report(session, [endpoint("pod-1/eth0")])
    await world.registry.open(Node("node-2"))
    world.clock.advance(LOST_AFTER_S - 1)
    await world.registry.open(Node("node-1", labels={"rack": "7"}))
    world.clock.advance(1)
    await world.registry.sweep()
    assert world.state("node-2") is NodeState.LOST
    before = dict(world.registry.nodes)

    await world.restart()
    assert {name: replace(node, heartbeat_at=0) for name, node in world.registry.nodes.items()} == {
        name: replace(node, heartbeat_at=0) for name, node in before.items()
    }
    assert world.watched("node-1") == {"pod-1/eth0"}
    assert (world.state("node-1"), world.state("node-2")) == (NodeState.READY, NodeState.LOST)
    world.clock.advance(LOST_AFTER_S - 1)
    await world.registry.sweep()
    assert world.state("node-1") is NodeState.READY
    world.clock.advance(1)
    await world.registry.sweep()
    assert world.state("node-1") is NodeState.LOST
