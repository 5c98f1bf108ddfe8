"""Whatever nodes do, the topic, the store and the registry's memory say the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.errors import NodeAlive, NotFound, SessionReplaced
from services.registry.identities import Identities
from services.registry.model import UNMANAGED, Endpoint, Node, NodeState
from services.registry.service import Fact, Registry, Session, endpoint_key, node_key
from services.registry.testing import FakeClock, MemoryStore
from services.runtime.watch import Topic

LOST_AFTER_S = 30.0

names = st.sampled_from(["node-1", "node-2"])
ids = st.lists(st.sampled_from(["a", "b", "c"]), unique=True)
addresses = st.sampled_from(["10.0.0.1", "10.0.0.2"])
apps = st.sampled_from(["web", "db", "mail"])
actions = st.one_of(
    st.tuples(st.just("open"), names, st.sampled_from(["7", "8"])),
    st.tuples(st.just("heartbeat"), names),
    st.tuples(st.just("report"), names, ids, addresses, ids, st.booleans(), apps),
    st.tuples(st.just("pass"), st.sampled_from([1.0, 10.0, 31.0])),
    st.tuples(st.just("tend identities")),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("write heartbeats")),
    st.tuples(st.just("restart")),
)


class Site:
    def __init__(self) -> None:
        self.clock, self.store = FakeClock(), MemoryStore()
        self.heard: dict[str, float] = {}
        self.sessions: dict[str, Session] = {}

    async def start(self) -> None:
        self.topic: Topic[Fact] = Topic()
        # Fewer numbers than sets of labels.
        identities = Identities(self.clock, rest_s=20.0, first=256, last=257)
        self.registry = Registry(self.store, self.topic, self.clock, lost_after_s=LOST_AFTER_S, identities=identities)
        await self.registry.start()
        self.sessions.clear()
        self.heard = dict.fromkeys(self.registry.nodes, self.clock.monotonic())

    async def do(self, action: tuple[object, ...]) -> None:
        match action:
            case ("open", str(name), str(rack)):
                self.sessions[name] = await self.registry.open(Node(name, labels={"rack": rack}))
                self.heard[name] = self.clock.monotonic()
            case ("heartbeat", str(name)) if name in self.sessions:
                await self._as_node(name, self.registry.heartbeat(self.sessions[name]))
            case ("report", str(name), list(upserted), str(address), list(deleted), bool(whole), str(app)) if (
                name in self.sessions
            ):
                endpoints = [Endpoint(name, id, addresses=(address,), labels={"app": app}) for id in upserted]
                report = self.registry.report(self.sessions[name], endpoints, deleted, replace_all=whole)
                await self._as_node(name, report)
            case ("pass", float(seconds)):
                self.clock.advance(seconds)
            case ("delete", str(name)):
                try:
                    await self.registry.delete(name)
                except (NodeAlive, NotFound):
                    return
                del self.heard[name]
            case ("tend identities",):
                await self.registry.tend_identities()
            case ("write heartbeats",):
                await self.registry.write_heartbeats()
            case ("restart",):
                await self.start()

    async def _as_node(self, name: str, doing: object) -> None:
        try:
            await doing  # type: ignore[misc]
        except SessionReplaced:
            assert name not in self.registry.nodes, "only a deleted node's stream is refused here"
            return
        self.heard[name] = self.clock.monotonic()

    async def check(self) -> None:
        await self.registry.sweep()
        stored = await self.store.load()
        nodes, endpoints = dict(self.registry.nodes), self.registry.endpoints
        for name, node in nodes.items():
            silent_s = self.clock.monotonic() - self.heard[name]
            if silent_s < LOST_AFTER_S:
                # A restart gives a lost node no life, only time: it is back once it has spoken.
                assert node.state is NodeState.READY or self.registry.node(name).heartbeat_at < self.clock.now()
            else:
                assert node.state is NodeState.LOST
        told: dict[str, Fact] = {node_key(name): replace(node, heartbeat_at=0.0) for name, node in nodes.items()}
        told |= {endpoint_key(one.key): one for of in endpoints.values() for one in of.values()}
        assert self.topic.snapshot() == told
        assert {node.name: replace(node, heartbeat_at=0.0) for node in stored.nodes} == {
            name: replace(node, heartbeat_at=0.0) for name, node in nodes.items()
        }
        assert list(stored.endpoints) == sorted(
            (one for of in endpoints.values() for one in of.values()), key=lambda one: one.key
        )
        labels = {one.number: one.labels for one in stored.identities}
        for one in stored.endpoints:
            assert one.identity == UNMANAGED or labels[one.identity] == one.labels
        for number in labels:
            assert self.registry.identities.uses(number) == sum(one.identity == number for one in stored.endpoints)


@settings(max_examples=100, deadline=None)
@given(sequence=st.lists(actions, max_size=20))
def test_memory_store_and_topic_agree(sequence: list[tuple[object, ...]]) -> None:
    async def run() -> None:
        site = Site()
        await site.start()
        for action in sequence:
            await site.do(action)
            await site.check()

    asyncio.run(run())
