"""What every process counts, and the endpoint that tells it to Prometheus.

Domains' services define their own metrics with prometheus_client, named plimsoll_<service>_<what>_<unit>.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)

from services.runtime.addresses import parse_listen
from services.runtime.errors import RuntimeFault

GRPC_CALLS: Final = Counter("plimsoll_grpc_server_calls", "gRPC calls answered", ["method", "code"])
GRPC_STREAMS: Final = Gauge("plimsoll_grpc_server_streams", "gRPC streams open now", ["method"])
GRPC_SECONDS: Final = Histogram(
    "plimsoll_grpc_server_seconds",
    "time to answer a gRPC call that is no stream",
    ["method"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
CERTIFICATE_EXPIRES: Final = Gauge(
    "plimsoll_certificate_expires_timestamp_seconds", "when the certificate in use expires, Unix time", ["path"]
)
READY: Final = Gauge("plimsoll_ready", "1 while the service is serving")


# Awaited before anything is collected: what takes long is read there, a part at a time.
PREPARATIONS: Final[list[Callable[[], Awaitable[None]]]] = []


class _Collected(CollectorRegistry):
    """What was collected, as it is read out."""

    def __init__(self, families: Sequence[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


async def exposition() -> bytes:
    """All metrics as Prometheus reads them: collected in the loop, which owns what is counted, and written in a thread,
    since those of a large fleet take a second."""
    for prepare in PREPARATIONS:
        await prepare()
    return await asyncio.to_thread(generate_latest, _Collected(list(REGISTRY.collect())))


class MetricsEndpoint:
    """HTTP server with /metrics and /healthz (200 while `healthy()`, else 503). Enter it to listen.

    :param listen: "host:port" or "unix:/path".
    """

    def __init__(self, listen: str, healthy: Callable[[], bool]) -> None:
        self.listen = listen
        self.port: int | None = None
        self._healthy = healthy
        self._runner: Any = None

    async def __aenter__(self) -> Self:
        # Only a process that has the endpoint pays for loading an HTTP server.
        from aiohttp import web

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=await exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def healthz(_request: web.Request) -> web.Response:
            healthy = self._healthy()
            return web.Response(text="ok\n" if healthy else "not serving\n", status=200 if healthy else 503)

        app = web.Application()
        app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        address = parse_listen(self.listen)
        site: web.BaseSite
        if isinstance(address, Path):
            if address.is_socket():
                address.unlink()
            site = web.UnixSite(self._runner, str(address))
        else:
            site = web.TCPSite(self._runner, *address)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            raise RuntimeFault(
                "precondition",
                f"can't listen on {self.listen}: {os.strerror(exc.errno) if exc.errno else exc}",
                field="metrics_listen",
                remedy="Stop what listens there, or choose another metrics_listen.",
            ) from exc
        if not isinstance(address, Path):
            self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()
