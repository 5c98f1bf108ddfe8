"""Errors: a domain's error keeps its words across the wire."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2

from ipam import errors as ipam
from services.runtime.errors import DETAILS_KEY, RemoteError, describe, from_rpc_error, to_rpc_status


def over_the_wire(exc: BaseException) -> RemoteError:
    status = to_rpc_status(exc)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, status.message))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            ipam.InvalidInput("it is -1", field="watermarks.pre_allocate", remedy="give 0 or more"),
            "INVALID_ARGUMENT",
        ),
        (ipam.NotFound("no node node-9", remedy="plimsoll nodes list"), "NOT_FOUND"),
        (ipam.StaleFence("fence 3 is older than 4"), "ABORTED"),
        (ipam.PoolEmpty("no free address", retry_after_s=2.5), "RESOURCE_EXHAUSTED"),
        (ipam.Throttled("RequestLimitExceeded", code="RequestLimitExceeded", retry_after_s=0.25), "UNAVAILABLE"),
        (ipam.Denied("no permission"), "PERMISSION_DENIED"),
        (ipam.IpamError("it broke"), "INTERNAL"),
    ],
)
def test_a_domain_error_arrives_whole(error: ipam.IpamError, code: str) -> None:
    remote = over_the_wire(error)
    assert remote.code.name == code
    for name in ("kind", "message", "field", "remedy", "retry_after_s"):
        assert getattr(remote, name) == getattr(error, name), name
    assert over_the_wire(remote).reason == remote.reason, "an error may pass through a service between"


def test_an_unexpected_error_does_not_tell_its_text() -> None:
    remote = over_the_wire(ValueError("password=hunter2"))
    assert remote.kind == "internal"
    assert "hunter2" not in remote.message
    assert "ValueError" in remote.message


def test_deadline_and_transport_errors_are_unavailable() -> None:
    assert to_rpc_status(TimeoutError()).code == code_pb2.DEADLINE_EXCEEDED
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused")
    remote = from_rpc_error(error)
    assert remote.kind == "unavailable"
    assert "certificates" in remote.remedy


def test_broken_details_do_not_hide_the_error() -> None:
    trailers = grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailers, "no such node")
    assert from_rpc_error(error).message == "no such node"


def test_people_read_what_which_and_what_to_do() -> None:
    error = ipam.InvalidInput("-1 is not accepted", field="pre_allocate", remedy="Give 0 or more", retry_after_s=3)
    assert describe(error) == "-1 is not accepted. Field: pre_allocate. Give 0 or more. Try again in 3 s."
    assert describe(KeyError("x")) == "KeyError: 'x'"
