"""Runs a Celery worker inside a service: in a thread, under the service's lifecycle, signals and logs."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Final, Self

import structlog
from celery import Celery
from celery.worker import state
from celery.worker.consumer import Consumer

_state: Any = state
log = structlog.get_logger(__name__)

START_TIMEOUT_S: Final = 10.0
_RETRY_FIRST_S: Final = 0.2
_RETRY_LONGEST_S: Final = 2.0


class PromptConsumer(Consumer):
    """Looks for a lost Redis again every two seconds at the latest; Celery's own pauses grow to half a minute."""

    def ensure_connected(self, conn: Any) -> Any:
        def lost(error: Exception, pause_s: float) -> None:
            log.warning("the queue's Redis does not answer", reason=str(error), again_in_s=pause_s)

        def look() -> None:
            state.maybe_shutdown()

        return conn.ensure_connection(
            lost,
            None,
            interval_start=_RETRY_FIRST_S,
            interval_step=_RETRY_FIRST_S,
            interval_max=_RETRY_LONGEST_S,
            callback=look,
        )


class CeleryRunner:
    """Takes from the queue while entered. Leaving stops taking, waits for tasks under way, and returns the rest.

    One per process: Celery keeps its wish to stop in module state.
    """

    def __init__(self, app: Celery, *, threads: int) -> None:
        app.conf.worker_consumer = f"{PromptConsumer.__module__}:{PromptConsumer.__qualname__}"
        self._app = app
        self._threads = threads
        self._worker: Any = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._ended: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Returns when taking from the queue, or at once after START_TIMEOUT_S while Redis is away."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        _state.should_stop = None
        # Celery's threads look a task up in the default application of the process.
        self._app.set_default()
        self._worker = self._app.WorkController(
            pool="threads",
            concurrency=self._threads,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            ready_callback=lambda _consumer: self._ready.set(),
        )
        self._thread = threading.Thread(target=self._run, args=(loop,), name="celery", daemon=True)
        self._thread.start()
        await asyncio.to_thread(self._ready.wait, START_TIMEOUT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ended is not None
        _state.should_stop = 0
        await asyncio.shield(self._ended)

    async def ended(self) -> None:
        """Raises RuntimeError when taking from the queue ends by itself; never returns."""
        assert self._ended is not None
        await asyncio.shield(self._ended)
        raise RuntimeError("the queue's consumer ended; see its log lines above")

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._worker.start()
        except Exception:
            log.exception("the queue's consumer failed")
        finally:
            loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


__all__ = ["CeleryRunner", "PromptConsumer"]
