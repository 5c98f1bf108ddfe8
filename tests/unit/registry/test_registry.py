"""The registry's decisions, with a clock that the test owns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from ipam.cluster_pool import ClusterPool, parse_cluster
from services.registry.errors import NoClusterRanges, NodeAlive, NotFound, RangesExhausted, SessionReplaced
from services.registry.identities import Identities
from services.registry.model import UNMANAGED, Capacity, Endpoint, Node, NodeState
from services.registry.ports import Changes
from services.registry.service import Fact, Registry, Session
from services.registry.testing import FakeClock, MemoryStore
from services.runtime.watch import Topic

LOST_AFTER_S = 30.0
REST_S = 600.0


@dataclass
class World:
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: FakeClock = field(default_factory=FakeClock)
    topic: Topic[Fact] = field(default_factory=Topic)
    last_identity: int = 0xFFFFFF

    def __post_init__(self) -> None:
        identities = Identities(self.clock, rest_s=REST_S, first=256, last=self.last_identity)
        self.registry = Registry(self.store, self.topic, self.clock, lost_after_s=LOST_AFTER_S, identities=identities)

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


async def test_a_heartbeat_tells_capacity_which_is_nobodys_news_and_goes_with_the_node(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    revision = world.topic.position.revision
    await world.registry.heartbeat(session, Capacity(attached=8, in_use=3, obtainable=20, limited_by="subnets"))
    await world.registry.heartbeat(session)
    assert world.registry.capacities["node-1"].obtainable == 20
    assert world.topic.position.revision == revision
    world.clock.advance(LOST_AFTER_S)
    await world.registry.sweep()
    await world.registry.delete("node-1")
    assert world.registry.capacities == {}


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


def labelled(node: str, id: str, **labels: str) -> Endpoint:
    return Endpoint(node, id, labels=labels)


def identity_of(world: World, node: str, id: str) -> int:
    """What watchers, the store and the listing say, which is one thing."""
    told = world.topic.get(f"endpoint/{node}/{id}")
    assert isinstance(told, Endpoint)
    assert told == world.registry.endpoints[node][id]
    return told.identity


async def stored_identities(world: World) -> dict[int, object]:
    return {one.number: one.labels for one in (await world.store.load()).identities}


async def test_equal_labels_have_one_identity_on_every_node_and_after_a_restart(world: World) -> None:
    one, two = await world.registry.open(Node("node-1")), await world.registry.open(Node("node-2"))
    await world.registry.report(one, [labelled("node-1", "a", app="web"), labelled("node-1", "b", app="db")])
    await world.registry.report(two, [labelled("node-2", "a", app="web")])
    web, db = identity_of(world, "node-1", "a"), identity_of(world, "node-1", "b")
    assert web == identity_of(world, "node-2", "a") == 256
    assert db == 257
    assert await stored_identities(world) == {web: {"app": "web"}, db: {"app": "db"}}
    writes = len(world.store.written)
    await world.restart()
    assert len(world.store.written) == writes, "nothing was new"
    assert (identity_of(world, "node-2", "a"), identity_of(world, "node-1", "b")) == (web, db)


async def test_an_identity_that_a_node_claims_is_ignored_by_what_is_told_again(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [labelled("node-1", "a", app="web")])
    position, writes = world.topic.position, len(world.store.written)
    await world.registry.report(session, [labelled("node-1", "a", app="web")], replace_all=True)
    assert (world.topic.position, len(world.store.written)) == (position, writes)


async def test_a_label_that_changes_changes_the_identity(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [labelled("node-1", "a", app="web")])
    await world.registry.report(session, [labelled("node-1", "a", app="db")])
    assert identity_of(world, "node-1", "a") == 257
    assert world.registry.identities.uses(256) == 0
    assert world.registry.identities.resting == 1


async def test_an_identity_is_forgotten_after_its_rest_and_not_before(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [labelled("node-1", "a", app="web"), labelled("node-1", "b", app="db")])
    await world.registry.report(session, [], ["a"])
    world.clock.advance(REST_S - 1)
    await world.registry.tend_identities()
    assert set(await stored_identities(world)) == {256, 257}
    world.clock.advance(1)
    await world.registry.tend_identities()
    assert set(await stored_identities(world)) == {257}
    await world.registry.report(session, [labelled("node-1", "c", app="other")])
    assert identity_of(world, "node-1", "c") == 258


async def test_a_deleted_node_gives_its_identities_back(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [labelled("node-1", "a", app="web")])
    world.clock.advance(LOST_AFTER_S)
    await world.registry.sweep()
    await world.registry.delete("node-1")
    assert world.registry.identities.resting == 1


async def test_a_write_that_fails_gives_the_number_back_and_the_next_one_writes_it(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    world.store.fail = OSError("disk")
    with pytest.raises(OSError, match="disk"):
        await world.registry.report(session, [labelled("node-1", "a", app="web")])
    assert world.registry.identities.uses(256) == 0
    await world.registry.report(session, [labelled("node-1", "a", app="web")])
    assert await stored_identities(world) == {256: {"app": "web"}}


async def test_without_a_number_left_pods_are_unmanaged_until_there_is_one() -> None:
    world = World(last_identity=256)
    await world.registry.start()
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [labelled("node-1", "a", app="web")])
    await world.registry.report(session, [labelled("node-1", "b", app="db")])
    assert identity_of(world, "node-1", "b") == UNMANAGED
    assert world.registry.identities.refusals == 1
    await world.restart()
    assert identity_of(world, "node-1", "b") == UNMANAGED
    session = await world.registry.open(Node("node-1"))
    await world.registry.report(session, [], ["a"])
    world.clock.advance(REST_S)
    await world.registry.tend_identities()
    assert identity_of(world, "node-1", "b") == 256
    assert await stored_identities(world) == {256: {"app": "db"}}


async def test_endpoints_of_an_older_release_get_their_identity_at_the_start(world: World) -> None:
    session = await world.registry.open(Node("node-1"))
    await world.store.apply(Changes(endpoints=[labelled("node-1", "a", app="web")]), leader=1)
    await world.restart()
    assert identity_of(world, "node-1", "a") == 256
    assert [one.identity for one in (await world.store.load()).endpoints] == [256]
    assert session.node == "node-1"


async def test_two_nodes_with_one_range_are_named(world: World) -> None:
    with capture_logs() as logs:
        await world.registry.open(Node("node-1", pod_cidrs=("10.1.0.0/24", "fd00:1::/64")))
        await world.registry.open(Node("node-1", pod_cidrs=("10.1.0.0/24", "fd00:1::/64"), labels={"rack": "7"}))
        await world.registry.open(Node("node-2", pod_cidrs=("10.1.1.0/24", "fd00:2::/64")))
        assert not [line for line in logs if line["log_level"] == "error"]
        await world.registry.open(Node("node-3", pod_cidrs=("10.1.0.128/25",)))
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert (line["node"], line["other"], line["range"]) == ("node-3", "node-1", "10.1.0.128/25")
    assert line["remedy"]


# the cluster's ranges


CLUSTER = ["10.128.0.0/22", "fd00:7::/62"]


async def ranged(store: MemoryStore | None = None) -> World:
    world = World(store or MemoryStore())
    world.registry = Registry(
        world.store,
        world.topic,
        world.clock,
        lost_after_s=LOST_AFTER_S,
        cluster_pool=ClusterPool(parse_cluster(CLUSTER)),
    )
    await world.registry.start()
    return world


async def test_each_node_gets_ranges_that_nobody_else_has_and_gets_them_again() -> None:
    world = await ranged()
    names = ["node-1", "node-2", "node-3", "node-1", "node-2"]
    given = await asyncio.gather(*(world.registry.take_pod_cidrs(name) for name in names))
    assert given[:2] == [("10.128.0.0/24", "fd00:7::/64"), ("10.128.1.0/24", "fd00:7:0:1::/64")]
    assert given[3:] == given[:2]
    assert len({text for texts in given for text in texts}) == 6
    await world.registry.open(Node("node-1", addresses=("192.168.0.1",), pod_cidrs=given[0]))
    assert world.state("node-1") is NodeState.READY
    again = await ranged(world.store)
    assert [await again.registry.take_pod_cidrs(name) for name in names] == given, "also of the next registry"


async def test_a_nodes_ranges_are_free_again_when_it_is_deleted_and_not_before() -> None:
    world = await ranged()
    for number in range(4):
        await world.registry.take_pod_cidrs(f"node-{number}")
    await world.registry.open(Node("node-9", pod_cidrs=("192.168.9.0/24",)))
    with pytest.raises(RangesExhausted, match="4 nodes") as caught:
        await world.registry.take_pod_cidrs("node-9")
    assert "delete nodes" in caught.value.remedy
    world.clock.advance(10 * LOST_AFTER_S)
    await world.registry.sweep()
    with pytest.raises(RangesExhausted):
        await world.registry.take_pod_cidrs("node-9")
    await world.registry.delete("node-2")
    assert await world.registry.take_pod_cidrs("node-9") == ("10.128.2.0/24", "fd00:7:0:2::/64")


async def test_ranges_that_are_not_written_are_not_given() -> None:
    world = await ranged()
    world.store.fail = OSError("disk")
    with pytest.raises(OSError, match="disk"):
        await world.registry.take_pod_cidrs("node-1")
    world.store.fail = None
    assert "node-1" not in world.registry.nodes


async def test_a_registry_without_ranges_says_so(world: World) -> None:
    with pytest.raises(NoClusterRanges):
        await world.registry.take_pod_cidrs("node-1")
