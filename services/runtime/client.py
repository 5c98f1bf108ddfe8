"""Channels to other services: for asyncio, and for the threads of workers.

    channel = aio_channel("10.0.0.5:7401", settings.tls, "service/registry")
    channel = aio_channel("unix:/run/plimsoll/registry.sock", None)

A call that is no stream has a deadline even if its caller sets none, is repeated when the transport failed (a server's
own UNAVAILABLE is not: it says by RetryInfo when to try again), and needs the server to prove its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, cast

import grpc

from services.runtime import pki, tracing
from services.runtime.errors import RuntimeFault
from services.runtime.rotation import RotatingAioChannel, RotatingChannel
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.settings import TlsSettings
from services.runtime.tls import Material, TlsFiles, channel_credentials

DEADLINE_S: Final = 10.0

_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        # Stops repeating while most calls fail, so that a sick server is not beaten.
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
    }
)


def aio_channel(
    target: str, tls: TlsSettings | None, server_identity: str = "", *, deadline_s: float = DEADLINE_S
) -> grpc.aio.Channel:
    """A channel for the running event loop; closes with `async with` or `close()`.

    :param target: "host:port" or "unix:/path".
    :param tls: this process's files; None only for Unix sockets and servers with `insecure_loopback`.
    :param server_identity: whom the server's certificate must name, such as "service/registry".
    :param deadline_s: for calls whose caller sets none; streams have no limit.
    """
    interceptors = [*tracing.aio_client_interceptors(), _AioDeadline(deadline_s)]
    if tls is None or target.startswith("unix:"):
        return grpc.aio.insecure_channel(target, options=_options(), interceptors=interceptors)

    def make(material: Material) -> grpc.aio.Channel:
        options = _options(_expected_name(material, server_identity))
        return grpc.aio.secure_channel(
            target, channel_credentials(material), options=options, interceptors=interceptors
        )

    return RotatingAioChannel(TlsFiles(tls.ca, tls.certificate, tls.key), make)


def sync_channel(
    target: str, tls: TlsSettings | None, server_identity: str = "", *, deadline_s: float = DEADLINE_S
) -> grpc.Channel:
    """The same for threads; see `aio_channel`."""
    deadline = _Deadline(deadline_s)
    if tls is None or target.startswith("unix:"):
        return grpc.intercept_channel(tracing.traced(grpc.insecure_channel(target, options=_options())), deadline)

    def make(material: Material) -> grpc.Channel:
        options = _options(_expected_name(material, server_identity))
        return grpc.secure_channel(target, channel_credentials(material), options=options)

    channel = RotatingChannel(TlsFiles(tls.ca, tls.certificate, tls.key), make)
    return grpc.intercept_channel(tracing.traced(channel), deadline)


def _expected_name(material: Material, server_identity: str) -> str:
    """DNS name that the server's certificate must carry, in the trust domain of our own certificate."""
    kind, _, name = server_identity.partition("/")
    if kind not in ("service", "node") or not name:
        raise RuntimeFault(
            "invalid",
            f"server_identity {server_identity!r} is not accepted: expected service/<name> or node/<name>",
            field="server_identity",
        )
    return pki.dns_name(material.trust_domain, kind, name)


def _options(expected_name: str = "") -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        # How long connecting may take, handshake included. When a server has thousands of peers to greet, each that
        # gives up and comes again makes it take longer for all.
        ("grpc.min_reconnect_backoff_ms", 20_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Channels must not share connections: one that was made again after a rotation would get the old one.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if expected_name:
        options.append(("grpc.ssl_target_name_override", expected_name))
    return options


class _Deadline(grpc.UnaryUnaryClientInterceptor):
    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    def intercept_unary_unary(
        self, continuation: Callable[[grpc.ClientCallDetails, Any], Any], details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        if details.timeout is None:
            details = cast(Any, details)._replace(timeout=self._deadline_s)
        return continuation(details, request)


class _AioDeadline(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        if details.timeout is None:
            details = cast(Any, details)._replace(timeout=self._deadline_s)
        return await continuation(details, request)
