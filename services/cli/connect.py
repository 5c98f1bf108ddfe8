"""Asking services: one short-lived channel a service, a deadline on each call, errors with what to do about them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from services.cli.context import Service
from services.cli.errors import CliError, Refused, Standby, Unknown, Unreachable, Usage
from services.runtime.addresses import is_loopback
from services.runtime.client import sync_channel
from services.runtime.errors import RemoteError, RuntimeFault, from_rpc_error
from services.runtime.settings import TlsSettings

DEADLINE_S = 5.0
PAGE_SIZE = 500
PARALLEL = 16

T = TypeVar("T")
Stub = TypeVar("Stub")


@contextmanager
def stub_of(service: Service, stub: Callable[[grpc.Channel], Stub]) -> Iterator[Stub]:
    """A stub of the service. Errors of calls leave the block as CliError that names the service."""
    _knock(service)
    try:
        channel = _channel(service)
    except RuntimeFault as error:
        raise Usage(
            f"the certificates to show {service.name} cannot be used: {error.message}",
            field="tls",
            remedy="correct the table [tls] of the context file; `plimsoll pki issue service cli` makes a pair",
        ) from error
    with channel:
        try:
            yield stub(channel)
        except grpc.RpcError as error:
            raise translate(service, error) from error


def pages(call: Callable[..., Any], request: Any, items: Callable[[Any], Sequence[T]]) -> list[T]:
    """All items of a paged listing."""
    request.page_size = PAGE_SIZE
    found: list[T] = []
    while True:
        answer = call(request, timeout=DEADLINE_S)
        found.extend(items(answer))
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


def ask_all(services: Sequence[Service], ask: Callable[[Service], T]) -> list[T | CliError]:
    """Asks services side by side. The answers stand in the services' order; an error takes its answer's place."""

    def one(service: Service) -> T | CliError:
        try:
            return ask(service)
        except CliError as error:
            return error

    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(one, services))


def of_leaders(services: Sequence[Service], ask: Callable[[Service], T]) -> list[T]:
    """Answers of all services but those replicas that do not lead. Raises the first error: half an answer would read as
    a whole one."""
    answers = ask_all(services, ask)
    leading = [answer for answer in answers if not isinstance(answer, Standby)]
    for answer in leading or answers:
        if isinstance(answer, CliError):
            raise answer
    return [answer for answer in leading if not isinstance(answer, CliError)]


def translate(service: Service, error: grpc.RpcError) -> CliError:
    """The error of a call as what the command reports."""
    remote = from_rpc_error(error)
    where = f"{service.name} ({service.target})"
    match remote.kind:
        case "not_found":
            return Unknown(remote.message, field=remote.field, remedy=remote.remedy)
        case "invalid":
            return Usage(remote.message, field=remote.field, remedy=remote.remedy)
        case "precondition" if remote.reason == "NOT_LEADER":
            return Standby(f"{service.name}: {remote.message}", remedy=_with_retry(remote))
        case "precondition" | "conflict" | "exhausted" | "denied":
            return Refused(f"{service.name}: {remote.message}", field=remote.field, remedy=_with_retry(remote))
        case "unavailable" if not remote.reason:  # the transport speaks, not the service
            return Unreachable(f"{where} cannot be reached: {remote.message}", remedy=_start(service))
        case "unavailable":
            return Unreachable(f"{where} cannot answer now: {remote.message}", remedy=_with_retry(remote))
        case _:
            return Unreachable(f"{where} failed: {remote.message}", remedy=remote.remedy or "look at the service's log")


def _with_retry(remote: RemoteError) -> str:
    if remote.retry_after_s is None:
        return remote.remedy
    return f"{remote.remedy}; try again in {remote.retry_after_s:.0f} s".lstrip("; ")


def _start(service: Service) -> str:
    unit = {"registry": "plimsoll-registry", "ipam": f"plimsoll-{service.identity}", "node": "plimsoll-node"}
    hint = f"see whether it runs (systemctl status {unit[service.kind]}), whether the context file has its address"
    if service.target.startswith("unix:"):
        return hint.replace("), whether", ") and whether")
    if service.tls is None:
        return f"{hint}, and add the table [tls] to that file"
    return f"{hint}, and whether both certificates come from one authority (plimsoll pki show)"


def _knock(service: Service) -> None:
    """Says at once, and better than gRPC could, why a Unix socket does not answer."""
    if not service.target.startswith("unix:"):
        return
    path = service.target.removeprefix("unix:")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(DEADLINE_S)
        try:
            knock.connect(path)
        except PermissionError as error:
            raise Refused(
                f"{service.name}: {path} may not be opened", remedy="run as root, or as a member of the socket's group"
            ) from error
        except OSError as error:
            why = error.strerror or str(error)
            raise Unreachable(f"{service.name} cannot be reached: {path}: {why}", remedy=_start(service)) from error


def _channel(service: Service) -> grpc.Channel:
    tls = None
    if service.tls is None and not (service.target.startswith("unix:") or is_loopback(service.target)):
        raise Usage(
            f"{service.name} ({service.target}) is on the network, and there are no certificates to show it",
            field="tls",
            remedy="add the table [tls] with ca, certificate and key to the context file",
        )
    if service.tls is not None:
        tls = TlsSettings(ca=service.tls.ca, certificate=service.tls.certificate, key=service.tls.key)
    return sync_channel(service.target, tls, f"service/{service.identity}")
