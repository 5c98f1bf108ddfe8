"""IpamService: nodes watch their own pool, people look and explain. No decisions: those are PoolService's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, cast

import grpc
import structlog

from ipam.errors import InvalidInput, NotFound
from ipam.model import DeadLetter, Intent, NodeSpec
from ipam.overrides import overridden
from ipam.service import PoolService
from services.api.ipam import convert_work, node_pools
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.api.ipam.v1 import level_pb2
from services.ipam import reports
from services.ipam.convert import finding_to, level_from, level_to, pool_to, status_to
from services.ipam.pages import page
from services.ipam.topics import PoolTopics
from services.runtime.push import Push
from services.runtime.server import identity, require_node
from services.runtime.watch import Position, Subscription

log = structlog.get_logger(__name__)

OPEN_TIMEOUT_S: Final = 10.0
Context = grpc.aio.ServicerContext[Any, Any]


class IpamHandlers(pb_grpc.IpamServiceServicer):
    """:param defaults: what a node gets that sets nothing itself."""

    def __init__(
        self, service: PoolService, topics: PoolTopics, defaults: NodeSpec, *, cloud: str, account: str, region: str
    ) -> None:
        self._service = service
        self._topics = topics
        self._defaults = defaults
        self._place = {"cloud": cloud, "account": account, "region": region}

    async def Watch(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[pb.WatchRequest], context: Context
    ) -> None:
        # One task that hears; what there is to tell is written by Push when there is. Generators and a second task are
        # 4 KB for each node.
        name, session, position = await self._announced(await _first(request_iterator), context)
        subscription = self._topics.subscribe(name, position)
        this = cast("asyncio.Task[None]", asyncio.current_task())
        push = Push(subscription, context.write, ended=this.cancel)
        try:
            await self._hear(name, session, request_iterator, subscription)
        except asyncio.CancelledError:
            if not (subscription.closed or push.error) or this.uncancel():
                raise
            if push.error:
                raise push.error from None
            self._topics.check_leads()
        finally:
            push.stop()
            self._topics.unsubscribe(name, subscription)
            await self._service.disconnected(name, session)
            log.info("node disconnected", node=name)

    async def _announced(self, opened: pb.WatchRequest.Open, context: Context) -> tuple[str, int, Position]:
        """Name and session of the pool that a stream is for, and the position from which it goes on.

        Apart from `Watch`, whose locals live as long as the stream, once for each of thousands of nodes.
        """
        reports.check_labels(opened.node)
        defaults = overridden(self._defaults, self._service.config.overrides, opened.node.labels)
        spec = reports.node_spec_from(opened.node, defaults)
        require_node(identity(context), spec.node)
        names = node_pools.from_metadata(context.invocation_metadata() or ())
        session = await self._service.announce(spec, reports.usage_from(opened.usage), names)
        log.info("node connected", node=spec.name, instance=spec.instance_id)
        return spec.name, session, Position.from_proto(opened.position)

    async def _hear(
        self,
        node: str,
        session: int,
        requests: AsyncIterator[pb.WatchRequest],
        subscription: Subscription[bytes],
    ) -> None:
        """What the node says, until it says no more; then its stream ends."""
        async for request in requests:
            match request.WhichOneof("message"):
                case "usage":
                    await self._service.report(node, reports.usage_from(request.usage), session)
                case "ack":
                    errors = reports.errors_from(request.ack)
                    if errors and errors != subscription.errors:
                        log.warning("node could not bring interfaces into force", node=node, errors=errors)
                    subscription.acknowledge(Position.from_proto(request.ack.position), errors)
                case other:
                    raise InvalidInput(
                        f"{other or 'an empty message'} does not belong here", field="message",
                        remedy="open once, then send usage and ack",
                    )  # fmt: skip
            del request  # until the next one, which may be long

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:  # noqa: N802
        require_node(identity(context), _node_of(request.node))
        return pb.GetPoolResponse(pool=pool_to(self._service.pool(request.node)))

    async def ListPools(self, request: pb.ListPoolsRequest, context: Context) -> pb.ListPoolsResponse:  # noqa: N802
        part, token = page(self._service.names(), str, request.page_size, request.page_token)
        answer = pb.ListPoolsResponse(next_page_token=token)
        for name in part:
            with suppress(NotFound):  # it is gone by now
                answer.pools.append(pool_to(self._service.pool(name)))
            await asyncio.sleep(0)  # a page may be long, and nodes wait for their turn
        return answer

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:  # noqa: N802
        require_node(identity(context), _node_of(request.node))
        return pb.ExplainResponse(findings=[finding_to(each) for each in self._service.explain(request.node)])

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        return status_to(self._service.status(), **self._place)

    async def Resync(self, request: pb.ResyncRequest, context: Context) -> pb.ResyncResponse:  # noqa: N802
        return pb.ResyncResponse(intent_id=await self._service.resync())

    async def ListIntents(  # noqa: N802
        self, request: pb.ListIntentsRequest, context: Context
    ) -> pb.ListIntentsResponse:
        intents = sorted(self._service.intents(request.node), key=_age)
        part, token = page(intents, _age, request.page_size, request.page_token)
        return pb.ListIntentsResponse(intents=[convert_work.intent_to(each) for each in part], next_page_token=token)

    async def ListDeadLetters(  # noqa: N802
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        letters = sorted(self._service.dead_letters(), key=_death)
        part, token = page(letters, _death, request.page_size, request.page_token)
        return pb.ListDeadLettersResponse(
            dead_letters=[convert_work.dead_letter_to(each) for each in part], next_page_token=token
        )

    async def GetDeadLetter(  # noqa: N802
        self, request: pb.GetDeadLetterRequest, context: Context
    ) -> pb.GetDeadLetterResponse:
        return pb.GetDeadLetterResponse(dead_letter=convert_work.dead_letter_to(self._service.dead_letter(request.id)))

    async def ReplayDeadLetter(  # noqa: N802
        self, request: pb.ReplayDeadLetterRequest, context: Context
    ) -> pb.ReplayDeadLetterResponse:
        return pb.ReplayDeadLetterResponse(intent_id=await self._service.replay(request.id))

    async def SetLevel(self, request: level_pb2.SetLevelRequest, context: Context) -> level_pb2.SetLevelResponse:  # noqa: N802
        lasts_s = request.lasts.ToNanoseconds() / 1e9 if request.HasField("lasts") else 0.0
        view = await self._service.set_level(level_from(request.level), lasts_s=lasts_s, why=request.why)
        return level_pb2.SetLevelResponse(degradation=level_to(view))


async def _first(requests: AsyncIterator[pb.WatchRequest]) -> pb.WatchRequest.Open:
    async with asyncio.timeout(OPEN_TIMEOUT_S):
        async for request in requests:
            if request.WhichOneof("message") == "open":
                return request.open
            break
    raise InvalidInput("a watch begins with `open`", field="message", remedy="send open first")


def _node_of(key: str) -> str:
    """The node that a pool called `key` belongs to."""
    return key.partition("/")[0]


def _age(intent: Intent) -> str:
    return f"{intent.created_at:020.6f}/{intent.id}"


def _death(letter: DeadLetter) -> str:
    return f"{letter.died_at:020.6f}/{letter.id}"
