"""The registry over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.registry import wire
from services.registry.errors import InvalidInput, SessionReplaced
from services.registry.model import Endpoint, Node
from services.registry.pages import page
from services.registry.service import Fact, Registry, Session
from services.runtime.server import allow, identity, require_node
from services.runtime.watch import Position, Subscription, Topic

SERVICE = "plimsoll.registry.v1.RegistryService"

# Nodes speak for themselves (checked per stream); people and the gateway look, and delete.
POLICY = {
    f"/{SERVICE}/Watch": allow(nodes=True),
    f"/{SERVICE}/GetNode": allow(nodes=True, services={"gateway", "cli"}),
    f"/{SERVICE}/ListNodes": allow(nodes=True, services={"gateway", "cli"}),
    f"/{SERVICE}/ListEndpoints": allow(nodes=True, services={"gateway", "cli"}),
    f"/{SERVICE}/ListIdentities": allow(nodes=True, services={"gateway", "cli"}),
    f"/{SERVICE}/TakePodCidrs": allow(nodes=True),
    f"/{SERVICE}/DeleteNode": allow(services={"gateway", "cli"}),
}


class RegistryHandlers(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(self, registry: Registry, topic: Topic[Fact]) -> None:
        self._registry = registry
        self._topic = topic

    async def Watch(  # noqa: N802
        self, request_iterator: AsyncIterator[registry_pb2.WatchRequest], context: Any
    ) -> AsyncIterator[Any]:
        opened = await _opening(request_iterator)
        require_node(identity(context), opened.node.name)
        session = await self._registry.open(wire.node_from(opened.node))
        with _Stream(self._registry, session, request_iterator) as stream:
            if opened.subscribe:
                position = Position.from_proto(opened.position)
                async with self._topic.subscribe(position, name=session.node) as stream.subscription:
                    async for encoded in stream.until_ended(stream.subscription.encoded()):
                        yield encoded
            else:
                await stream.ended.wait()
            await stream.outcome()

    async def GetNode(  # noqa: N802
        self, request: registry_pb2.GetNodeRequest, context: Any
    ) -> registry_pb2.GetNodeResponse:
        node = self._registry.node(request.name)
        return registry_pb2.GetNodeResponse(node=self._told(node))

    async def ListNodes(  # noqa: N802
        self, request: registry_pb2.ListNodesRequest, context: Any
    ) -> registry_pb2.ListNodesResponse:
        names = sorted((name,) for name in self._registry.nodes)
        told, following = page(names, size=request.page_size, token=request.page_token)
        nodes = [self._told(self._registry.nodes[name]) for (name,) in told]
        return registry_pb2.ListNodesResponse(nodes=nodes, next_page_token=following)

    async def ListEndpoints(  # noqa: N802
        self, request: registry_pb2.ListEndpointsRequest, context: Any
    ) -> registry_pb2.ListEndpointsResponse:
        nodes = [self._registry.node(request.node).name] if request.node else sorted(self._registry.endpoints)
        keys: Sequence[tuple[str, ...]] = [
            (node, id) for node in nodes for id in sorted(self._registry.endpoints[node])
        ]
        told, following = page(keys, size=request.page_size, token=request.page_token, scope=f"node={request.node}")
        endpoints = [wire.endpoint_message(self._registry.endpoints[node][id]) for node, id in told]
        return registry_pb2.ListEndpointsResponse(endpoints=endpoints, next_page_token=following)

    async def ListIdentities(  # noqa: N802
        self, request: registry_pb2.ListIdentitiesRequest, context: Any
    ) -> registry_pb2.ListIdentitiesResponse:
        identities = self._registry.identities
        # Of one width, so that their order as text is that of the numbers.
        keys = [(f"{number:08}",) for number in sorted(identities.all)]
        told, following = page(keys, size=request.page_size, token=request.page_token, scope="identities")
        found = [wire.identity_message(identities.all[int(key)], identities.uses(int(key))) for (key,) in told]
        return registry_pb2.ListIdentitiesResponse(identities=found, next_page_token=following)

    async def TakePodCidrs(  # noqa: N802
        self, request: registry_pb2.TakePodCidrsRequest, context: Any
    ) -> registry_pb2.TakePodCidrsResponse:
        require_node(identity(context), request.node)
        wire.check_name(request.node, field="node")
        return registry_pb2.TakePodCidrsResponse(pod_cidrs=await self._registry.take_pod_cidrs(request.node))

    async def DeleteNode(  # noqa: N802
        self, request: registry_pb2.DeleteNodeRequest, context: Any
    ) -> registry_pb2.DeleteNodeResponse:
        await self._registry.delete(request.name)
        return registry_pb2.DeleteNodeResponse()

    def _told(self, node: Node) -> registry_pb2.Node:
        endpoints = len(self._registry.endpoints[node.name])
        return wire.node_message(node, endpoints, self._registry.capacities.get(node.name))


class _Stream:
    """A node's open stream: its requests are read in a task of their own, while batches go out."""

    def __init__(
        self, registry: Registry, session: Session, requests: AsyncIterator[registry_pb2.WatchRequest]
    ) -> None:
        self.subscription: Subscription[Fact] | None = None
        self.ended = asyncio.Event()
        self._registry = registry
        self._session = session
        self._requests = requests

    def __enter__(self) -> _Stream:
        self._session.end = self.ended.set
        if self._session.replaced:
            self.ended.set()
        self._reader = asyncio.create_task(self._read(), name=f"registry-watch-{self._session.node}")
        self._reader.add_done_callback(lambda _: self.ended.set())
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.cancel()

    async def until_ended(self, batches: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`batches`, until the node has closed its side, failed, or was replaced."""
        ended = asyncio.create_task(self.ended.wait())
        following: asyncio.Task[bytes] | None = None
        try:
            while True:
                following = asyncio.create_task(anext(batches))  # type: ignore[arg-type]
                await asyncio.wait((following, ended), return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return
                yield following.result()
        finally:
            ended.cancel()
            if following is not None:
                following.cancel()

    async def outcome(self) -> None:
        """Raises what ended the stream, if it was not the node's own wish."""
        if self._reader.done():
            await self._reader
        if self._session.replaced:
            raise SessionReplaced(
                f"a newer stream of node {self._session.node} has replaced this one, or the node was deleted",
                remedy="if two machines carry this name, rename one",
            )

    async def _read(self) -> None:
        async for request in self._requests:
            kind = request.WhichOneof("message")
            if kind == "heartbeat":
                told = request.heartbeat
                capacity = wire.capacity_from(told.capacity) if told.HasField("capacity") else None
                await self._registry.heartbeat(self._session, capacity)
            elif kind == "endpoints":
                await self._report(request.endpoints)
            elif kind == "ack":
                self._acknowledge(request)
                await self._registry.heartbeat(self._session)
            else:
                raise InvalidInput("a stream is opened once, by its first request", field=kind or "message")

    async def _report(self, endpoints: registry_pb2.WatchRequest.Endpoints) -> None:
        node = self._session.node
        wire.check_report(endpoints)
        upserted: list[Endpoint] = [
            wire.endpoint_from(message, node=node, field=f"endpoints.upserted[{position}]")
            for position, message in enumerate(endpoints.upserted)
        ]
        await self._registry.report(self._session, upserted, endpoints.deleted_ids, replace_all=endpoints.replace)

    def _acknowledge(self, request: registry_pb2.WatchRequest) -> None:
        if self.subscription is not None:
            self.subscription.acknowledge(Position.from_proto(request.ack.position), wire.errors_from(request.ack))


async def _opening(requests: AsyncIterator[registry_pb2.WatchRequest]) -> registry_pb2.WatchRequest.Open:
    async for request in requests:
        if request.WhichOneof("message") == "open":
            return request.open
        break
    raise InvalidInput("the first request of a stream must be open", field="open", remedy="announce the node first")
