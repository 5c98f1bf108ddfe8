"""The IPAM service as its workers see it, over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import grpc

from ipam.errors import IpamError, NotFound, StaleFence, StoreError
from ipam.model import Claim, Goal, Instance, Inventory, Outcome, Report, Step
from services.api.ipam import convert_work as convert
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.runtime.errors import from_rpc_error

T = TypeVar("T")

CLAIM_TIMEOUT_S: Final = 5.0
# A restart of the service fits in, and a change of its leader: what was begun is better told late than not at all, for
# an intent whose worker gave up rests until its lease has ended.
TELL_TIMEOUT_S: Final = 20.0
_PAUSE_S: Final = 0.5


class GrpcJournal:
    """Implements ipam.ports.IntentJournal. Every call may be made twice: the service tells them apart by the fence."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = pb_grpc.IpamWorkServiceStub(channel)

    def claim(self, intent_id: str, holder: str) -> Claim | None:
        request = pb.ClaimIntentRequest(intent_id=intent_id, holder=holder)
        try:
            answer = self._tell(lambda: self._stub.ClaimIntent(request, timeout=CLAIM_TIMEOUT_S, wait_for_ready=True))
        except (NotFound, _HeldByAnother):
            return None
        return convert.claim_from(answer)

    def record(
        self, intent_id: str, fence: int, steps: Sequence[Step], instance: Instance | None = None
    ) -> Goal | None:
        request = pb.RecordStepsRequest(
            intent_id=intent_id, fence=fence, steps=[convert.step_to(each) for each in steps],
            instance=None if instance is None else convert.instance_to(instance),
        )  # fmt: skip
        answer = self._tell(lambda: self._stub.RecordSteps(request, timeout=TELL_TIMEOUT_S, wait_for_ready=True))
        return convert.goal_from(answer.goal) if answer.HasField("goal") else None

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
            self._stub.ReportInventory(requests(), wait_for_ready=True)
        except (grpc.RpcError, ValueError) as error:
            raise _domain_error(error) from error
        finally:
            if failed:
                raise failed[0]

    @staticmethod
    def _tell(call: Callable[[], T]) -> T:
        """Repeats what was not heard, or was told to a replica that does not lead at the moment."""
        give_up_at = time.monotonic() + TELL_TIMEOUT_S
        while True:
            try:
                return call()
            except (grpc.RpcError, ValueError) as error:
                if not _passing(error) or time.monotonic() + _PAUSE_S > give_up_at:
                    raise _domain_error(error) from error
            time.sleep(_PAUSE_S)


def _passing(error: Exception) -> bool:
    if not isinstance(error, grpc.RpcError):
        return False
    remote = from_rpc_error(error)
    return remote.kind == "unavailable" or (remote.kind == "precondition" and remote.retry_after_s is not None)


class _HeldByAnother(StaleFence):
    """The intent is leased, or not due yet."""


def _domain_error(error: grpc.RpcError | ValueError) -> IpamError:
    if isinstance(error, ValueError):
        # What grpc says of a channel that was closed because the worker stops.
        return StoreError(str(error), remedy="none is needed: another worker takes the intent")
    remote = from_rpc_error(error)
    if remote.kind == "precondition" and remote.retry_after_s is None:
        return _HeldByAnother(remote.message, field=remote.field)
    kinds: dict[str, type[IpamError]] = {"conflict": StaleFence, "not_found": NotFound}
    kind = kinds.get(remote.kind, StoreError)
    return kind(remote.message, field=remote.field, remedy=remote.remedy, retry_after_s=remote.retry_after_s)


__all__ = ["GrpcJournal"]
