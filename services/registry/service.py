"""Registry: who is there, who lives, and what runs where.

Its state is in memory, and on disk before anybody is told of it: a change is written, then applied, then published.
Heartbeats are the exception: they stay in memory and reach the disk now and then, all in one write, because after a
restart every node is given the whole time again before it counts as lost.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_network

import structlog

from ipam.cluster_pool import ClusterPool, Ranges
from services.registry.errors import (
    IdentitiesExhausted,
    NoClusterRanges,
    NodeAlive,
    NotFound,
    RangesExhausted,
    SessionReplaced,
)
from services.registry.identities import Identities
from services.registry.model import UNMANAGED, Capacity, Endpoint, EndpointKey, Node, NodeState
from services.registry.ports import Changes, Clock, RegistryStore
from services.runtime.watch import Topic

# What is watched: nodes under their name, endpoints under node and id, which no node's name can be taken for.
Fact = Node | Endpoint


# Each word of a node has its ranges with it.
_network = lru_cache(maxsize=65536)(ip_network)


def node_key(name: str) -> str:
    return f"node/{name}"


def endpoint_key(key: EndpointKey) -> str:
    return f"endpoint/{key[0]}/{key[1]}"


@dataclass(slots=True, eq=False)
class Session:
    """A node's stream, from its opening until a newer one replaces it. `end` is called then, once."""

    node: str
    end: Callable[[], None] = field(default=lambda: None)
    replaced: bool = False


class Registry:
    """All decisions of the service. Belongs to one event loop.

    :param topic: is told of nodes (without `heartbeat_at`, which would be news each second) and endpoints.
    :param lost_after_s: a node that was silent for so long is lost.
    :param identities: gives out the numbers of sets of labels; none of them is loaded yet.
    :param cluster_pool: gives nodes their ranges; None: each node has its own, or a cloud's IPAM.
    """

    def __init__(
        self,
        store: RegistryStore,
        topic: Topic[Fact],
        clock: Clock,
        *,
        lost_after_s: float,
        identities: Identities | None = None,
        cluster_pool: ClusterPool | None = None,
    ) -> None:
        self._store = store
        self._topic = topic
        self._clock = clock
        self._lost_after_s = lost_after_s
        self._identities = Identities(clock) if identities is None else identities
        self._cluster_pool = cluster_pool
        self._ranges = Ranges()
        self._giving = asyncio.Lock()
        # No number is taken while the store forgets some: it might forget one that was just taken.
        self._tending = asyncio.Lock()
        self._exhausted = False
        self._leader = 0
        self._nodes: dict[str, Node] = {}
        self._endpoints: dict[str, dict[str, Endpoint]] = {}
        self._sessions: dict[str, Session] = {}
        self.capacities: dict[str, Capacity] = {}
        # Monotonic seconds, and which of them the store does not have.
        self._heard_at: dict[str, float] = {}
        self._unwritten: set[str] = set()
        # A node's changes happen one after the other; those of different nodes share a commit.
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._log = structlog.get_logger("registry")

    async def start(self) -> None:
        """Leads from now on, and loads what is stored. Every node gets the whole `lost_after_s` to come back."""
        self._leader = await self._store.lead()
        stored = await self._store.load()
        now = self._clock.monotonic()
        self._nodes = {node.name: node for node in stored.nodes}
        for node in stored.nodes:
            self._ranges.put(node.name, map(_network, node.pod_cidrs))
        self._endpoints = {name: {} for name in self._nodes}
        self._heard_at = dict.fromkeys(self._nodes, now)
        self._identities.load(stored.identities)
        numbered = [self._numbered(endpoint) for endpoint in stored.endpoints]
        # Of an older release, or of other `identity_labels`.
        await self._write_endpoints([one for one, was in zip(numbered, stored.endpoints, strict=True) if one != was])
        for endpoint in numbered:
            self._endpoints[endpoint.node][endpoint.id] = endpoint
        facts: dict[str, Fact] = {node_key(node.name): _told(node) for node in stored.nodes}
        facts.update((endpoint_key(endpoint.key), endpoint) for endpoint in numbered)
        self._topic.publish(facts)

    async def open(self, announced: Node) -> Session:
        """A node has opened a stream and says what it is. Ends its older stream, if there is one."""
        session = Session(announced.name)
        before, self._sessions[announced.name] = self._sessions.get(announced.name), session
        if before is not None:
            before.replaced = True
            before.end()
        async with self._locks[announced.name]:
            known = self._nodes.get(announced.name)
            now = self._clock.now()
            registered_at = known.registered_at if known is not None else now
            node = replace(announced, state=NodeState.READY, registered_at=registered_at, heartbeat_at=now)
            if known is None or _told(known) != _told(node):
                await self._write_node(node)
                self._warn_of_overlaps(node)
                self._log.info("node registered" if known is None else "node changed", node=node.name)
            self._heard(node.name)
        return session

    async def take_pod_cidrs(self, name: str) -> tuple[str, ...]:
        """The node's ranges out of the cluster's: those it has, else free ones, which are durable before it is told.

        A node that has not opened a stream yet is lost from the start: its ranges stay its own until it is deleted.
        Raises NoClusterRanges, RangesExhausted.
        """
        if self._cluster_pool is None:
            raise NoClusterRanges(
                "no ranges of the cluster are configured", field="cluster_cidrs",
                remedy="set the registry's cluster_cidrs, or give the node pod_cidrs of its own",
            )  # fmt: skip
        async with self._locks[name], self._giving:
            known = self._nodes.get(name)
            if known is not None and self._cluster_pool.holds(known.pod_cidrs):
                return known.pod_cidrs
            given = self._cluster_pool.give(self._ranges)
            if not given:
                raise RangesExhausted(
                    f"all ranges for {self._cluster_pool.ranges.nodes} nodes are given", field="cluster_cidrs",
                    remedy="add a range to the registry's cluster_cidrs, or delete nodes that are gone",
                )  # fmt: skip
            node = known or Node(name, state=NodeState.LOST, registered_at=self._clock.now())
            await self._write_node(replace(node, pod_cidrs=given))
        self._log.info("node got ranges", node=name, pod_cidrs=given)
        return given

    def _warn_of_overlaps(self, node: Node) -> None:
        """Two nodes that lease from one range give two pods one address. It is said and not refused: one of them may be
        gone for good, and only its administrator knows."""
        for range_ in map(_network, node.pod_cidrs):
            for other in self._ranges.sharing(range_):
                if other != node.name:
                    self._log.error(
                        "two nodes have one range of addresses", node=node.name, other=other, range=str(range_),
                        remedy="give each node a range of its own; delete the node that is gone",
                    )  # fmt: skip

    async def heartbeat(self, session: Session, capacity: Capacity | None = None) -> None:
        """The node lives. Raises SessionReplaced.

        :param capacity: kept in memory only: the next heartbeat tells it anew.
        """
        self._check(session)
        if capacity is not None:
            self.capacities[session.node] = capacity
        self._heard(session.node)
        if self._nodes[session.node].state is not NodeState.READY:
            await self._revive(session.node)

    async def report(
        self,
        session: Session,
        upserted: Sequence[Endpoint],
        deleted_ids: Collection[str] = (),
        *,
        replace_all: bool = False,
    ) -> None:
        """The node's endpoints: all that it has when `replace_all`, else what changed. An id in both stays."""
        await self.heartbeat(session)
        async with self._locks[session.node]:
            self._check(session)
            current = self._endpoints[session.node]
            wanted = {endpoint.id: endpoint for endpoint in upserted}
            news = [endpoint for endpoint in wanted.values() if not _same(current.get(endpoint.id), endpoint)]
            gone = [id for id in (current if replace_all else deleted_ids) if id in current and id not in wanted]
            if news or gone:
                await self._change(session.node, news, gone)

    async def _change(self, node: str, news: Sequence[Endpoint], gone: Sequence[str] = ()) -> None:
        """Writes, applies and publishes endpoints of a node whose lock is held."""
        current = self._endpoints[node]
        async with self._tending:
            changed = [self._numbered(endpoint) for endpoint in news]
        await self._write_endpoints(changed, [(node, id) for id in dict.fromkeys(gone)])
        for id in (*gone, *(endpoint.id for endpoint in changed)):
            before = current.pop(id, None)
            if before is not None:
                self._identities.give_back(before.identity)
        current.update((endpoint.id, endpoint) for endpoint in changed)
        self._topic.publish(
            {endpoint_key(endpoint.key): endpoint for endpoint in changed}, [endpoint_key((node, id)) for id in gone]
        )

    def _numbered(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with the number of its labels, taken for it."""
        try:
            number = self._identities.take(endpoint.labels)
        except IdentitiesExhausted as error:
            number = UNMANAGED
            if not self._exhausted:
                self._exhausted = True
                self._log.error("no identity left", error=error.message, remedy=error.remedy, endpoint=endpoint.id)
        return replace(endpoint, identity=number)

    async def _write_endpoints(self, changed: Sequence[Endpoint], removed: Sequence[EndpointKey] = ()) -> None:
        """Writes endpoints that hold a number each, and the numbers. If it fails, these are given back."""
        fresh = self._identities.unwritten(endpoint.identity for endpoint in changed)
        if not changed and not removed:
            return
        try:
            await self._write(Changes(endpoints=changed, removed_endpoints=removed, identities=fresh))
        except BaseException:
            for endpoint in changed:
                self._identities.give_back(endpoint.identity)
            raise
        self._identities.written(fresh)

    async def tend_identities(self) -> None:
        """Forgets numbers whose rest is over, and gives what endpoints without one need."""
        async with self._tending:
            rested = self._identities.rested()
            if rested:
                await self._write(Changes(removed_identities=rested))
                self._identities.forget(rested)
        if not self._exhausted or self._identities.free <= 0:
            return
        self._exhausted = False
        for node in list(self._endpoints):
            async with self._locks[node]:
                without = [one for one in self._endpoints.get(node, {}).values() if one.identity == UNMANAGED]
                if without:
                    await self._change(node, without)

    async def delete(self, name: str) -> None:
        """Forgets a node with its endpoints. Raises NotFound, or NodeAlive while it is heard of."""
        async with self._locks[name]:
            node = self.node(name)
            silent_s = self._clock.monotonic() - self._heard_at[name]
            if node.state is NodeState.READY:
                raise NodeAlive(
                    f"node {name} was heard of {silent_s:.0f} s ago",
                    field="name",
                    remedy=f"stop its node daemon, wait until it is lost ({self._lost_after_s:g} s), then delete it",
                    retry_after_s=max(1.0, self._lost_after_s - silent_s),
                )
            await self._write(Changes(removed_nodes=[name]))
            gone = self._endpoints.pop(name, {})
            for endpoint in gone.values():
                self._identities.give_back(endpoint.identity)
            del self._nodes[name], self._heard_at[name]
            self._ranges.drop(name)
            self.capacities.pop(name, None)
            self._unwritten.discard(name)
            session = self._sessions.pop(name, None)
            self._topic.publish({}, [*(endpoint_key((name, id)) for id in gone), node_key(name)])
        if session is not None:
            session.replaced = True
            session.end()
        self._log.info("node deleted", node=name, endpoints=len(gone))

    async def sweep(self) -> float:
        """Marks the silent nodes lost. Returns the seconds until the next one can be."""
        now = self._clock.monotonic()
        ready = [node for node in self._nodes.values() if node.state is NodeState.READY]
        # A node whose lock is held is just being changed by its own words.
        overdue = [
            node
            for node in ready
            if now - self._heard_at[node.name] >= self._lost_after_s and not self._locks[node.name].locked()
        ]
        if overdue:
            await self._lose([node.name for node in overdue])
        silences = [now - self._heard_at[node.name] for node in ready if node not in overdue]
        return max(0.0, self._lost_after_s - max(silences, default=0.0))

    async def _lose(self, names: Sequence[str]) -> None:
        async with AsyncExitStack() as stack:
            for name in names:
                await stack.enter_async_context(self._locks[name])
            lost = [replace(self._nodes[name], state=NodeState.LOST) for name in names]
            await self._write(Changes(nodes=lost))
            self._tell(lost)
        self._log.warning("nodes lost", nodes=list(names), after_s=self._lost_after_s)
        for name in names:
            # It may have spoken while that was written.
            if name in self._nodes and self._clock.monotonic() - self._heard_at[name] < self._lost_after_s:
                await self._revive(name)

    async def write_heartbeats(self) -> None:
        """Writes the heartbeats heard since the last time, all in one."""
        names, self._unwritten = self._unwritten, set()
        if not names:
            return
        try:
            await self._write(Changes(heartbeats={name: self._nodes[name].heartbeat_at for name in names}))
        except BaseException:
            self._unwritten |= names & self._nodes.keys()
            raise

    def node(self, name: str) -> Node:
        """Raises NotFound."""
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(
                f"no node {name!r} is registered", field="name", remedy="plimsoll nodes list tells those that are"
            ) from None

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    @property
    def endpoints(self) -> Mapping[str, Mapping[str, Endpoint]]:
        """Endpoints by node and id."""
        return self._endpoints

    @property
    def identities(self) -> Identities:
        """The numbers of sets of labels, to be read only."""
        return self._identities

    def _check(self, session: Session) -> None:
        if session.replaced or self._sessions.get(session.node) is not session:
            raise SessionReplaced(
                f"a newer stream of node {session.node} has replaced this one, or the node was deleted",
                remedy="if two machines carry this name, rename one",
            )

    def _heard(self, name: str) -> None:
        self._heard_at[name] = self._clock.monotonic()
        self._nodes[name] = replace(self._nodes[name], heartbeat_at=self._clock.now())
        self._unwritten.add(name)

    async def _revive(self, name: str) -> None:
        async with self._locks[name]:
            node = self._nodes.get(name)
            if node is not None and node.state is not NodeState.READY:
                await self._write_node(replace(node, state=NodeState.READY))
                self._log.info("node is back", node=name)

    async def _write(self, changes: Changes) -> None:
        await self._store.apply(changes, leader=self._leader)

    async def _write_node(self, node: Node) -> None:
        await self._write(Changes(nodes=[node]))
        self._tell([node])

    def _tell(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._nodes[node.name] = node
            self._ranges.put(node.name, map(_network, node.pod_cidrs))
            self._endpoints.setdefault(node.name, {})
            self._heard_at.setdefault(node.name, self._clock.monotonic())
        self._topic.publish({node_key(node.name): _told(node) for node in nodes})


def _same(known: Endpoint | None, told: Endpoint) -> bool:
    """Whether a node tells what is known; the number is not its business."""
    return known is not None and replace(known, identity=0) == told


def _told(node: Node) -> Node:
    """What watchers are told of a node."""
    return replace(node, heartbeat_at=0.0)


__all__ = ["Fact", "Registry", "Session", "endpoint_key", "node_key"]
