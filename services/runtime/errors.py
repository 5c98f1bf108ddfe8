"""Errors across processes: a domain's error becomes a google.rpc Status with details, and back.

Domain errors are recognised by shape, so that no domain imports this package: an exception with `kind`, `message`,
`field`, `remedy` and `retry_after_s` (see `DomainError`). On the wire: `kind` picks the status code; ErrorInfo names
the error's class and kind, BadRequest the field, RetryInfo when to try again, Help the remedy.

    RuntimeFault
    └── RemoteError     what another process answered, with the same attributes; may be raised on as it is
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, Protocol, runtime_checkable

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

ERROR_DOMAIN: Final = "plimsoll"
# Trailer in which every gRPC implementation looks for a google.rpc.Status.
DETAILS_KEY: Final = "grpc-status-details-bin"

# Texts travel as HTTP/2 headers, percent-encoded (a byte may take three) and once more in base64 in the details; a
# client accepts 8 KiB of them in all.
_TEXT_BYTES: Final = 900

_CODE_OF_KIND: Final = {
    "invalid": code_pb2.INVALID_ARGUMENT,
    "not_found": code_pb2.NOT_FOUND,
    "conflict": code_pb2.ABORTED,
    "precondition": code_pb2.FAILED_PRECONDITION,
    "exhausted": code_pb2.RESOURCE_EXHAUSTED,
    "unavailable": code_pb2.UNAVAILABLE,
    "denied": code_pb2.PERMISSION_DENIED,
    "internal": code_pb2.INTERNAL,
}

_KIND_OF_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid",
    grpc.StatusCode.OUT_OF_RANGE: "invalid",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.ABORTED: "conflict",
    grpc.StatusCode.ALREADY_EXISTS: "conflict",
    grpc.StatusCode.FAILED_PRECONDITION: "precondition",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "exhausted",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "unavailable",
    grpc.StatusCode.CANCELLED: "unavailable",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
}


@runtime_checkable
class DomainError(Protocol):
    """The shape by which a domain's error is known."""

    @property
    def kind(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def field(self) -> str: ...
    @property
    def remedy(self) -> str: ...
    @property
    def retry_after_s(self) -> float | None: ...


class RuntimeFault(Exception):
    """Root of this package's errors; of the same shape as a domain's.

    :param kind: one of the kinds that the transport knows: invalid, not_found, conflict, precondition, exhausted,
        unavailable, denied, internal.
    :param field: the setting or request field to blame, dotted, or empty.
    :param remedy: what the reader can do about it, or empty.
    :param retry_after_s: when trying again makes sense, in seconds; None if it does not.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        field: str = "",
        remedy: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.remedy = remedy
        self.retry_after_s = retry_after_s


class RemoteError(RuntimeFault):
    """What another process answered. `code` is the status code, `reason` the name of the error's class over there."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        field: str = "",
        remedy: str = "",
        retry_after_s: float | None = None,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
    ) -> None:
        super().__init__(kind, message, field=field, remedy=remedy, retry_after_s=retry_after_s)
        self.code = code
        self.reason = reason


def to_rpc_status(exc: BaseException) -> status_pb2.Status:
    """The status that tells `exc` to a client. What is no domain error tells its class only: texts may hold secrets."""
    if isinstance(exc, grpc.RpcError):
        exc = from_rpc_error(exc)
    if isinstance(exc, TimeoutError):
        return status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="the server did not finish in time")
    if isinstance(exc, asyncio.CancelledError):
        return status_pb2.Status(code=code_pb2.CANCELLED, message="the call was cancelled")
    if isinstance(exc, NotImplementedError):
        return status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message="this server does not offer the call")
    if not isinstance(exc, DomainError):
        message = f"internal error ({type(exc).__name__}); the server's log has the details"
        return status_pb2.Status(code=code_pb2.INTERNAL, message=message)
    status = status_pb2.Status(code=_CODE_OF_KIND.get(exc.kind, code_pb2.INTERNAL), message=_short(exc.message))
    reason = getattr(exc, "reason", "") or _reason(type(exc).__name__)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata={"kind": exc.kind})
    _attach(status, info)
    if exc.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_short(exc.field, 200), description=_short(exc.message, 200)
        )
        _attach(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if exc.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(max(0, int(exc.retry_after_s * 1e9)))
        _attach(status, retry)
    if exc.remedy:
        _attach(status, error_details_pb2.Help(links=[error_details_pb2.Help.Link(description=_short(exc.remedy))]))
    return status


def from_rpc_error(err: grpc.RpcError) -> RemoteError:
    """What the other side said, or what the transport said of it. Never raises for a malformed status."""
    code = err.code() if isinstance(err, grpc.Call | grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    details = (err.details() if isinstance(err, grpc.Call | grpc.aio.AioRpcError) else str(err)) or ""
    remote = RemoteError(_KIND_OF_CODE.get(code, "internal"), details or code.name, code=code)
    status = _status_of(err)
    for detail in status.details if status is not None else ():
        _read_detail(remote, detail)
    if not remote.reason:
        remote.remedy = _TRANSPORT_REMEDY.get(code, "")
    return remote


def describe(exc: BaseException) -> str:
    """One paragraph for people: what happened, which field, what to do, when to try again."""
    if isinstance(exc, grpc.RpcError):
        exc = from_rpc_error(exc)
    if not isinstance(exc, DomainError):
        text = str(exc)
        return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
    parts = [_sentence(exc.message)]
    if exc.field and exc.field not in exc.message:
        parts.append(f"Field: {exc.field}.")
    if exc.remedy:
        parts.append(_sentence(exc.remedy))
    if exc.retry_after_s is not None:
        parts.append(f"Try again in {exc.retry_after_s:g} s.")
    return " ".join(parts)


_TRANSPORT_REMEDY: Final = {
    grpc.StatusCode.UNAVAILABLE: "Check that the service runs, that its address is right, and that both "
    "certificates come from the same authority.",
    grpc.StatusCode.UNIMPLEMENTED: "The server does not know this call: check the address and the versions.",
}


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _status_of(err: grpc.RpcError) -> status_pb2.Status | None:
    """The rich status in the trailing metadata; works for both call styles of grpc."""
    try:
        metadata: Any = err.trailing_metadata() or ()
        for key, value in metadata:
            if key == DETAILS_KEY:
                return status_pb2.Status.FromString(value)
    except Exception:  # noqa: BLE001 - a broken detail must not hide the error itself
        return None
    return None


def _read_detail(remote: RemoteError, detail: any_pb2.Any) -> None:
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    help_ = error_details_pb2.Help()
    # Unpack returns False for a detail of another type.
    if detail.Unpack(info):
        remote.reason = info.reason
        remote.kind = info.metadata.get("kind", remote.kind)
    elif detail.Unpack(bad) and bad.field_violations:
        remote.field = bad.field_violations[0].field
    elif detail.Unpack(retry):
        remote.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    elif detail.Unpack(help_) and help_.links:
        remote.remedy = help_.links[0].description


def _reason(class_name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).upper()


def _short(text: str, limit_bytes: int = _TEXT_BYTES) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= limit_bytes else data[:limit_bytes].decode(errors="ignore") + " ..."


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
