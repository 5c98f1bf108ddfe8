"""Streams to the central services. Each may be gone for any time: the node goes on, and tells all when it is back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import grpc
import structlog

from datapath.identities.model import ClusterState
from ipam.model import PoolInterface, Usage
from services.api.ipam import convert, node_pools
from services.api.ipam.v1 import ipam_pb2, ipam_pb2_grpc
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.api.watch.v1 import watch_pb2
from services.node.cluster import Cluster
from services.node.metadata import PREFIX, cloud_labels
from services.node.pods import Attached
from services.runtime.errors import describe
from services.runtime.watch import Follower, FollowState, Mirror, Position

_COALESCE_S = 0.005
# How often it is looked whether something was doubtful for too long.
_DOUBT_S = 1.0

# How often the node's capacity is asked for, the first time soon after the stream opens.
_CAPACITY_S = 60.0
_FIRST_CAPACITY_S = 2.0
_ASK_S = 5.0

_log = structlog.get_logger("clients")


class Signal:
    """Says "something changed" from any thread to those who wait on the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: list[asyncio.Event] = []

    def subscribe(self) -> asyncio.Event:
        event = asyncio.Event()
        self._events.append(event)
        return event

    def fire(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _set(self) -> None:
        for event in self._events:
            event.set()


class Connection(Protocol):
    """A stream as it is shown to people."""

    service: str
    target: str

    @property
    def state(self) -> FollowState: ...


class _Stream:
    """One channel at a time: a fresh one for each attempt, so that renewed certificates are used."""

    def __init__(self, connect: Callable[[], grpc.aio.Channel]) -> None:
        self._connect = connect
        self._channel: grpc.aio.Channel | None = None

    async def fresh(self) -> grpc.aio.Channel:
        await self.close()
        self._channel = self._connect()
        return self._channel

    @property
    def channel(self) -> grpc.aio.Channel | None:
        """The one in use now."""
        return self._channel

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


class IpamClient:
    """Announces the node, takes its pool, reports its usage.

    :param take: brings a whole pool into force; returns what is not, by interface id.
    :param changed: set whenever the usage may have changed.
    :param spec: of the node, or of a named pool of it, which has a stream of its own.
    :param names: of all named pools that the node has, told with its default pool's stream; None: with another's.
    :ivar capacity: what the service said last of the node's addresses, for the registry; None: nothing yet.
    """

    def __init__(
        self,
        target: str,
        connect: Callable[[], grpc.aio.Channel],
        spec: ipam_pb2.NodeSpec,
        *,
        take: Callable[[Mapping[str, PoolInterface]], Awaitable[Mapping[str, str]]],
        usage: Callable[[], Usage],
        changed: asyncio.Event,
        names: Collection[str] | None = None,
    ) -> None:
        self._metadata = None if names is None else node_pools.to_metadata(names)
        self.service = f"ipam/{spec.pool}" if spec.pool else "ipam"
        self.target = target
        self._stream = _Stream(connect)
        self._spec = spec
        self._take = take
        self._usage = usage
        self._changed = changed
        self._mirror: Mirror[str, PoolInterface] = Mirror()
        self.capacity: registry_pb2.Capacity | None = None
        self._follower: Follower[ipam_pb2.WatchRequest, ipam_pb2.WatchResponse] = Follower(
            "ipam", self._open, self._apply, _ipam_ack, on_state=self._on_state
        )

    @property
    def state(self) -> FollowState:
        return self._follower.state

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follower.run())
                tasks.create_task(self._report())
                tasks.create_task(self._ask())
        finally:
            await self._stream.close()

    async def _ask(self) -> None:
        """Asks for the capacity now and then: it changes with other nodes' wants, which the stream does not tell.

        Spread by half either way, so that nodes that started together do not ask together.
        """
        while True:
            await asyncio.sleep(_CAPACITY_S * random.uniform(0.5, 1.5) if self.capacity else _FIRST_CAPACITY_S)  # noqa: S311
            channel = self._stream.channel
            if channel is None or not self.state.connected:
                continue
            try:
                request = ipam_pb2.GetPoolRequest(node=convert.pool_key(self._spec))
                answer = await ipam_pb2_grpc.IpamServiceStub(channel).GetPool(request, timeout=_ASK_S)
            except grpc.RpcError as error:
                _log.debug("capacity not told", error=describe(error))
                continue
            self.capacity = _capacity_of(answer.pool)

    async def _open(self, position: Position) -> Any:
        call = ipam_pb2_grpc.IpamServiceStub(await self._stream.fresh()).Watch(metadata=self._metadata)
        usage = convert.usage_to(self._usage())
        opening = ipam_pb2.WatchRequest.Open(node=self._spec, position=position.to_proto(), usage=usage)
        await call.write(ipam_pb2.WatchRequest(open=opening))
        return call

    async def _apply(self, response: ipam_pb2.WatchResponse) -> Mapping[str, str] | None:
        interfaces = {one.id: convert.interface_from(one) for one in response.interfaces}
        self._mirror.apply(response.header, interfaces, list(response.deleted_interfaces))
        if not response.header.complete:
            return None
        return await self._take(self._mirror.state)

    def _on_state(self, state: FollowState) -> None:
        # What changed while the stream was being opened was told to nobody.
        if state.connected:
            self._changed.set()

    async def _report(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_COALESCE_S)
            self._changed.clear()
            if self._follower.state.connected:
                await self._follower.send(ipam_pb2.WatchRequest(usage=convert.usage_to(self._usage())))


def _capacity_of(pool: ipam_pb2.Pool) -> registry_pb2.Capacity:
    return registry_pb2.Capacity(
        attached=pool.attached,
        in_use=pool.in_use,
        obtainable=pool.obtainable.addresses,
        limited_by=pool.obtainable.limited_by,
    )


def _ipam_ack(ack: watch_pb2.Ack) -> ipam_pb2.WatchRequest:
    return ipam_pb2.WatchRequest(ack=ack)


class RegistryClient:
    """Registers the node, tells its pods, and that it lives; hears of all nodes and pods.

    While the registry is gone, what it told last holds. What it tells at its return is compared with that, and only
    what differs is a change.

    :param endpoints: all pods as they are now.
    :param changed: set whenever they may have changed.
    :param capacity: of the node's addresses, told with each heartbeat; None: nothing is known of it.
    :param take: brings what is known of the cluster into force; returns what is not, by key, for the registry to tell.
        Called for one state at a time. If it raises, the state comes again with all its changes.
        None: this node does not ask for the others.
    :param doubt_s: how long what a registry that lost its memory does not know is kept.
    """

    service = "registry"

    def __init__(
        self,
        target: str,
        connect: Callable[[], grpc.aio.Channel],
        node: registry_pb2.Node,
        *,
        endpoints: Callable[[], Sequence[registry_pb2.Endpoint]],
        changed: asyncio.Event,
        heartbeat_s: float,
        capacity: Callable[[], registry_pb2.Capacity | None] = lambda: None,
        take: Callable[[ClusterState], Awaitable[Mapping[str, str] | None]] | None = None,
        doubt_s: float = 60.0,
    ) -> None:
        self.target = target
        self.state = FollowState()
        self.cluster = Cluster(time.monotonic, doubt_s=doubt_s)
        self._take = take
        self._taking = asyncio.Lock()
        # What of the last state is not in force, by key.
        self._errors: Mapping[str, str] = {}
        self._stream = _Stream(connect)
        self._node = node
        self._endpoints = endpoints
        self._changed = changed
        self._heartbeat_s = heartbeat_s
        self._capacity = capacity
        self._told: dict[str, registry_pb2.Endpoint] = {}
        self._follower: Follower[registry_pb2.WatchRequest, registry_pb2.WatchResponse] = Follower(
            "registry", self._open, self._apply, _registry_ack, on_state=self._on_state
        )

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follower.run())
                tasks.create_task(self._heartbeat())
                tasks.create_task(self._report())
                tasks.create_task(self._doubt())
        finally:
            await self._stream.close()

    async def _open(self, position: Position) -> Any:
        call = registry_pb2_grpc.RegistryServiceStub(await self._stream.fresh()).Watch()
        opening = registry_pb2.WatchRequest.Open(
            node=self._node, position=position.to_proto(), subscribe=self._take is not None
        )
        await call.write(registry_pb2.WatchRequest(open=opening))
        whole = {one.id: one for one in self._endpoints()}
        endpoints = registry_pb2.WatchRequest.Endpoints(replace=True, upserted=whole.values())
        await call.write(registry_pb2.WatchRequest(endpoints=endpoints))
        self._told = whole
        # A registry that has nothing to send still took two messages.
        self.state = FollowState(connected=True)
        self._changed.set()
        return call

    async def _apply(self, response: registry_pb2.WatchResponse) -> Mapping[str, str] | None:
        async with self._taking:
            return await self._bring(self.cluster.apply(response))

    async def _bring(self, state: ClusterState | None) -> Mapping[str, str] | None:
        if state is not None and self._take is not None:
            self._errors = await self._take(state) or {}
            self.cluster.taken()
        return self._errors

    async def _doubt(self) -> None:
        while True:
            await asyncio.sleep(min(_DOUBT_S, max(self.cluster.doubtful_for_s(), 0.01)))
            try:
                async with self._taking:
                    await self._bring(self.cluster.expire())
            except Exception as error:  # noqa: BLE001  tried again with the next state
                _log.error("what is known of the cluster is not in force", error=describe(error))

    def _on_state(self, state: FollowState) -> None:
        self.state = state

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            beat = registry_pb2.WatchRequest.Heartbeat(capacity=self._capacity())
            await self._follower.send(registry_pb2.WatchRequest(heartbeat=beat))

    async def _report(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_COALESCE_S)
            self._changed.clear()
            now = {one.id: one for one in self._endpoints()}
            upserted = [one for key, one in now.items() if self._told.get(key) != one]
            deleted = [key for key in self._told if key not in now]
            if not upserted and not deleted:
                continue
            change = registry_pb2.WatchRequest.Endpoints(upserted=upserted, deleted_ids=deleted)
            # If the stream is down, the next one begins with all of them.
            if await self._follower.send(registry_pb2.WatchRequest(endpoints=change)):
                self._told = now


def _registry_ack(ack: watch_pb2.Ack) -> registry_pb2.WatchRequest:
    return registry_pb2.WatchRequest(ack=ack)


def registry_endpoint(node: str, attached: Attached, interface: PoolInterface | None = None) -> registry_pb2.Endpoint:
    """A pod as the registry is told of it; with what the cloud says of `interface`, which it has its address from."""
    lease = attached.lease
    # A pod must not claim what only its cloud can say of it.
    labels = {name: value for name, value in attached.labels.items() if not name.startswith(PREFIX)}
    if interface is not None:
        labels |= cloud_labels(interface)
    message = registry_pb2.Endpoint(
        id=str(lease.owner),
        node=node,
        pod=lease.pod,
        addresses=attached.endpoint.addresses,
        mac=attached.endpoint.mac,
        interface_id=lease.interface_id,
        labels=labels,
    )
    message.created_at.FromNanoseconds(int(lease.created_at * 1e9))
    return message
