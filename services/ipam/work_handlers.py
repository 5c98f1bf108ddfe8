"""IpamWorkService: what workers call. Every call after the claim carries the fence that the claim returned."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from ipam.errors import NotFound
from ipam.model import IntentKind
from ipam.service import PoolService
from services.api.ipam import convert_work as convert
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.ipam.metrics import IpamMetrics
from services.runtime.errors import RuntimeFault

Context = grpc.aio.ServicerContext[Any, Any]
_REMEMBERED_CLAIMS: Final = 10_000


class WorkHandlers(pb_grpc.IpamWorkServiceServicer):
    def __init__(self, service: PoolService, metrics: IpamMetrics) -> None:
        self._service = service
        self._metrics = metrics
        # For metrics only: kind and time of claims that this process gave.
        self._claims: dict[str, tuple[IntentKind, float]] = {}

    async def ClaimIntent(  # noqa: N802
        self, request: pb.ClaimIntentRequest, context: Context
    ) -> pb.ClaimIntentResponse:
        claim = await self._service.claim(request.intent_id, request.holder)
        if claim is None:
            if self._service.known(request.intent_id):
                raise RuntimeFault(
                    "precondition", f"{request.intent_id} is held by another worker, or not due yet", field="intent_id"
                )
            raise NotFound(f"{request.intent_id} is closed; nothing is left to do", field="intent_id")
        if len(self._claims) >= _REMEMBERED_CLAIMS:
            self._claims.clear()
        self._claims[request.intent_id] = (claim.intent.kind, time.monotonic())
        return convert.claim_to(claim)

    async def RecordSteps(  # noqa: N802
        self, request: pb.RecordStepsRequest, context: Context
    ) -> pb.RecordStepsResponse:
        steps = [convert.step_from(each) for each in request.steps]
        instance = convert.instance_from(request.instance) if request.HasField("instance") else None
        goal = await self._service.record(request.intent_id, request.fence, steps, instance)
        return pb.RecordStepsResponse(goal=None if goal is None else convert.goal_to(goal))

    async def ConfirmRelease(  # noqa: N802
        self, request: pb.ConfirmReleaseRequest, context: Context
    ) -> pb.ConfirmReleaseResponse:
        allowed = await self._service.confirm_release(request.intent_id, request.fence, request.addresses)
        self._metrics.release_asked(allowed=len(allowed), refused=len(request.addresses) - len(allowed))
        return pb.ConfirmReleaseResponse(addresses=allowed)

    async def CompleteIntent(  # noqa: N802
        self, request: pb.CompleteIntentRequest, context: Context
    ) -> pb.CompleteIntentResponse:
        outcome = convert.outcome_from(request)
        await self._service.complete(request.intent_id, request.fence, outcome, convert.report_from(request))
        kind, claimed_at = self._claims.pop(request.intent_id, (None, 0.0))
        if kind is not None:
            self._metrics.completed(kind, outcome, time.monotonic() - claimed_at)
        return pb.CompleteIntentResponse()

    async def ReportInventory(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ReportInventoryRequest], context: Context
    ) -> pb.ReportInventoryResponse:
        instances = corrected = 0
        complete = False
        async for request in request_iterator:
            page = convert.inventory_from(request)
            ours, differed = await self._service.inventory_page(request.intent_id, request.fence, page)
            instances += ours
            corrected += differed
            complete = page.last
        if complete:
            self._metrics.resynced(corrected)
        return pb.ReportInventoryResponse(instances=instances, corrected=corrected)
