"""OpenTelemetry traces, only when an OTLP endpoint is set; otherwise nothing of it is loaded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final, Self, cast

import grpc
import structlog

_SHIP_S: Final = 2.0

_tracing: Tracing | None = None


class Tracing:
    """Ships spans of this process to `endpoint` while it is entered. There is one in a process at most."""

    def __init__(self, service: str, endpoint: str) -> None:
        self._service = service
        self._endpoint = endpoint
        self._provider: Any = None

    def __enter__(self) -> Self:
        global _tracing
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        target = self._endpoint if "://" in self._endpoint else f"http://{self._endpoint}"
        self._provider = TracerProvider(resource=Resource.create({"service.name": self._service}))
        exporter = OTLPSpanExporter(endpoint=target, insecure=target.startswith("http://"), timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(self._provider)
        _tracing = self
        structlog.get_logger("tracing").info("traces are exported", endpoint=self._endpoint)
        return self

    def __exit__(self, *exc: object) -> None:
        global _tracing
        _tracing = None
        # Ships what is left. A collector that is gone must not hold up the stop.
        shipping = threading.Thread(target=self._provider.shutdown, name="tracing-shutdown", daemon=True)
        shipping.start()
        shipping.join(_SHIP_S)


def enabled() -> bool:
    return _tracing is not None


def server_interceptors() -> Sequence[Any]:
    """Interceptors for a grpc.aio server; none while tracing is off."""
    if not enabled():
        return ()
    from opentelemetry.instrumentation.grpc import aio_server_interceptor

    return (aio_server_interceptor(),)


def aio_client_interceptors() -> Sequence[Any]:
    if not enabled():
        return ()
    from opentelemetry.instrumentation.grpc import aio_client_interceptors as interceptors

    return tuple(interceptors())


def traced(channel: grpc.Channel) -> grpc.Channel:
    """A channel for threads whose calls carry the trace; the channel itself while tracing is off."""
    if not enabled():
        return channel
    from opentelemetry.instrumentation.grpc import client_interceptor
    from opentelemetry.instrumentation.grpc.grpcext import intercept_channel

    return cast(grpc.Channel, intercept_channel(channel, client_interceptor()))


def instrument_celery() -> None:
    """Carries traces through the queue; call once in a process that publishes or performs tasks."""
    if not enabled():
        return
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()
