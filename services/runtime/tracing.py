"""OpenTelemetry traces, only when an OTLP endpoint is set; otherwise nothing of it is loaded.

A trace follows a call through gRPC, and an intent through the queue: from the call that caused it, if one did, over
its publishing and the worker's task to the worker's calls. Watch streams carry none: their spans would last for days,
and all that happens meanwhile would hang below them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

    return (aio_server_interceptor(filter_=_ends_soon),)


def aio_client_interceptors() -> Sequence[Any]:
    if not enabled():
        return ()
    from opentelemetry.instrumentation.grpc import aio_client_interceptors as interceptors

    return tuple(interceptors(filter_=_ends_soon))


def traced(channel: grpc.Channel) -> grpc.Channel:
    """A channel for threads whose calls carry the trace; the channel itself while tracing is off."""
    if not enabled():
        return channel
    from opentelemetry.instrumentation.grpc import client_interceptor
    from opentelemetry.instrumentation.grpc.grpcext import intercept_channel

    return cast(grpc.Channel, intercept_channel(channel, client_interceptor()))


@contextmanager
def producing(name: str, **attributes: str | int) -> Iterator[dict[str, str]]:
    """A span around the publishing of a message. Yields headers that carry the trace; none while tracing is off."""
    if not enabled():
        yield {}
        return
    from opentelemetry import trace

    headers: dict[str, str] = {}
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span(name, kind=trace.SpanKind.PRODUCER, attributes=attributes):
        _propagator().inject(headers)
        yield headers


@contextmanager
def consuming(name: str, headers: Mapping[str, object], **attributes: str | int) -> Iterator[None]:
    """A span around what a message asks for, in the trace that its headers carry; a new trace if they carry none."""
    if not enabled():
        yield
        return
    from opentelemetry import context, trace

    carried = {key: value for key, value in headers.items() if isinstance(value, str)}
    parent = _propagator().extract(carried, context.Context())
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span(name, parent, kind=trace.SpanKind.CONSUMER, attributes=attributes):
        yield


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def _ends_soon(call: Any) -> bool:
    """Whether a call gets a span. Called with grpc's details of the call, of a client or a server."""
    method = call.method.decode() if isinstance(call.method, bytes) else call.method
    return not str(method).endswith("/Watch")
