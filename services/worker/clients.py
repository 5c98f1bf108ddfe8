"""The IPAM service as its workers see it, over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import grpc

from ipam.errors import IpamError, NotFound, StaleFence, StoreError
from ipam.model import Claim, Inventory, Outcome, Report, Step
from services.api.ipam import convert_work as convert
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.runtime.errors import from_rpc_error

T = TypeVar("T")

CLAIM_TIMEOUT_S: Final = 5.0
# A restart of the service fits in: a step that was begun is better told late than not at all.
TELL_TIMEOUT_S: Final = 20.0
_NOTHING_TO_TAKE: Final = ("not_found", "precondition")


class GrpcJournal:
    """Implements ipam.ports.IntentJournal. Every call may be made twice: the service tells them apart by the fence."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = pb_grpc.IpamWorkServiceStub(channel)

    def claim(self, intent_id: str, holder: str) -> Claim | None:
        request = pb.ClaimIntentRequest(intent_id=intent_id, holder=holder)
        try:
            answer = self._stub.ClaimIntent(request, timeout=CLAIM_TIMEOUT_S, wait_for_ready=True)
        except (grpc.RpcError, ValueError) as error:
            if isinstance(error, grpc.RpcError) and from_rpc_error(error).kind in _NOTHING_TO_TAKE:
                return None
            raise _domain_error(error) from error
        return convert.claim_from(answer)

    def record(self, intent_id: str, fence: int, steps: Sequence[Step]) -> None:
        request = pb.RecordStepsRequest(
            intent_id=intent_id, fence=fence, steps=[convert.step_to(each) for each in steps]
        )
        self._tell(lambda: self._stub.RecordSteps(request, timeout=TELL_TIMEOUT_S, wait_for_ready=True))

    def confirm_release(self, intent_id: str, fence: int, addresses: Sequence[str]) -> Sequence[str]:
        request = pb.ConfirmReleaseRequest(intent_id=intent_id, fence=fence, addresses=addresses)
        answer = self._tell(lambda: self._stub.ConfirmRelease(request, timeout=TELL_TIMEOUT_S, wait_for_ready=True))
        return tuple(answer.addresses)

    def complete(self, intent_id: str, fence: int, outcome: Outcome, report: Report) -> None:
        request = convert.completion_to(intent_id, fence, outcome, report)
        self._tell(lambda: self._stub.CompleteIntent(request, timeout=TELL_TIMEOUT_S, wait_for_ready=True))

    def inventory(self, intent_id: str, fence: int, pages: Iterator[Inventory]) -> None:
        failed: list[Exception] = []

        def requests() -> Iterator[pb.ReportInventoryRequest]:
            # What it raised would be lost in gRPC's own thread. A listing without its last page drops nothing.
            try:
                for page in pages:
                    yield convert.inventory_to(intent_id, fence, page)
            except Exception as error:  # noqa: BLE001 - raised below, in the caller's thread
                failed.append(error)

        try:
            # No deadline: the pages take as long as the cloud and the budget make them.
            self._tell(lambda: self._stub.ReportInventory(requests(), wait_for_ready=True))
        finally:
            if failed:
                raise failed[0]

    @staticmethod
    def _tell(call: Callable[[], T]) -> T:
        try:
            return call()
        except (grpc.RpcError, ValueError) as error:
            raise _domain_error(error) from error


def _domain_error(error: grpc.RpcError | ValueError) -> IpamError:
    if isinstance(error, ValueError):
        # What grpc says of a channel that was closed because the worker stops.
        return StoreError(str(error), remedy="none is needed: another worker takes the intent")
    remote = from_rpc_error(error)
    kinds: dict[str, type[IpamError]] = {"conflict": StaleFence, "not_found": NotFound}
    kind = kinds.get(remote.kind, StoreError)
    return kind(remote.message, field=remote.field, remedy=remote.remedy, retry_after_s=remote.retry_after_s)


__all__ = ["GrpcJournal"]
