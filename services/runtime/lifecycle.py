"""How a service lives: opens its parts in order, is SERVING once all are bound, stops on one signal in reverse.

    __main__.py:  run("registry", Settings, build)
    wiring.py:    async def build(settings: Settings, life: Lifecycle) -> None:
                      database = await life.enter(open_database(settings.store))
                      life.spawn("sweeper", service.run)
                      await life.enter(GrpcServer(settings, policy=POLICY))

What is spawned or entered later is stopped first. Exit codes: 0 stopped when asked, 1 crashed, 2 bad settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self, TypeVar, runtime_checkable

import structlog
import uvloop

from services.runtime import logging as runtime_logging
from services.runtime.errors import DomainError, describe
from services.runtime.memory import map_buffers
from services.runtime.metrics import READY, MetricsEndpoint
from services.runtime.notify import notify
from services.runtime.settings import HelpShown, ServiceSettings, SettingsError, load
from services.runtime.tracing import Tracing

T = TypeVar("T")
S = TypeVar("S", bound=ServiceSettings)

# Allocations between two passes of the garbage collector. A service holds a large state for long; Python's own 700 has
# the passes over it cost more for each node, the more nodes there are.
COLLECTOR_THRESHOLDS = (20_000, 10, 10)
FILES = 65_536
EXIT_CRASH = 1
EXIT_SETTINGS = 2


@runtime_checkable
class Serving(Protocol):
    """A part that is told when the service is ready, and when it no longer is."""

    async def set_serving(self, serving: bool, /) -> None: ...


class Lifecycle:
    """The parts and tasks of one service. `run` makes one; tests use it as an async context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = AsyncExitStack()
        self._tasks = asyncio.TaskGroup()
        self._serving: list[Serving] = []
        self._started = False
        self._stopping = False
        self._log = structlog.get_logger("lifecycle")

    @property
    def started(self) -> bool:
        """Whether the service is ready: all parts open, not stopping."""
        return self._started and not self._stopping

    async def enter(self, part: AbstractAsyncContextManager[T] | AbstractContextManager[T]) -> T:
        """Opens a part, which closes when the service stops. A part with `set_serving` is told about readiness."""
        value: T
        if isinstance(part, AbstractAsyncContextManager):
            value = await self._stack.enter_async_context(part)
        else:
            value = self._stack.enter_context(part)
        if isinstance(value, Serving):
            self._serving.append(value)
            if self._started:
                await value.set_serving(True)
        return value

    def defer(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Calls `callback` when the service stops, before what was opened earlier is closed."""
        self._stack.push_async_callback(callback)

    def spawn(self, name: str, function: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Runs `function()` until it returns or the service stops. If it raises, the whole service stops as crashed.

        It is cancelled, and awaited, before what was opened earlier is closed.
        """
        task = self._tasks.create_task(self._run_task(name, function), name=name)
        self._stack.push_async_callback(_cancelled, task)
        return task

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    def standing_by(self, why: str) -> None:
        """Tells the service manager that waiting is no failed start; clients still see a service that is not ready."""
        notify("READY=1", f"STATUS={self.name} is standing by: {why}", f"MAINPID={os.getpid()}")

    async def set_started(self) -> None:
        """All parts are open: say so to clients and to the service manager."""
        self._started = True
        READY.set(1)
        for part in self._serving:
            await part.set_serving(True)
        notify("READY=1", f"STATUS={self.name} is serving", f"MAINPID={os.getpid()}")

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        READY.set(0)
        notify("STOPPING=1", f"STATUS={self.name} is stopping")
        for part in self._serving:
            await part.set_serving(False)
        try:
            await self._stack.__aexit__(kind, exc, traceback)
        finally:
            await self._tasks.__aexit__(*sys.exc_info() if exc is None else (kind, exc, traceback))

    async def _run_task(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except Exception as exc:
            if not self._stopping:
                self._log.error("task failed; the service stops", task=name, error=describe(exc))
                raise
            self._log.warning("task failed while stopping", task=name, error=describe(exc))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def run(
    name: str,
    settings_class: type[S],
    build: Callable[[S, Lifecycle], Awaitable[None]],
    argv: list[str] | None = None,
    *,
    many_peers: bool = False,
) -> NoReturn:
    """Runs a service until SIGTERM or SIGINT, then leaves the process.

    :param many_peers: every node of a cluster stays connected to it, so what each takes matters (memory.py),
        and each is an open file.
    """
    if many_peers:
        map_buffers()
        raise_file_limit()
    try:
        settings = load(settings_class, sys.argv[1:] if argv is None else argv, name=name)
    except HelpShown as shown:
        sys.stdout.write(f"{shown}\n")
        sys.exit(0)
    except SettingsError as exc:
        sys.stderr.write("".join(f"{name}: {line}\n" for line in str(exc).splitlines()))
        sys.exit(EXIT_SETTINGS)
    runtime_logging.configure(name, level=settings.log_level, format=settings.log_format)
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_serve(name, settings, build))
    sys.exit(code)


def raise_file_limit() -> None:
    """Lets the process open as many files as it may at all: the usual soft limit is 1,024, and each peer is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a sandbox that forbids it has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(name: str, settings: S, build: Callable[[S, Lifecycle], Awaitable[None]]) -> int:
    log = structlog.get_logger("lifecycle")
    stop = _Stop(settings.stop_grace_s)
    began = time.monotonic()
    try:
        async with Lifecycle(name) as life:
            if settings.otlp_endpoint:
                await life.enter(Tracing(name, settings.otlp_endpoint))
            if settings.metrics_listen:
                await life.enter(MetricsEndpoint(settings.metrics_listen, lambda: life.started))
            await build(settings, life)
            await life.set_started()
            log.info("serving", startup_s=round(time.monotonic() - began, 3), pid=os.getpid())
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not stop.asked:
            raise
    except BaseExceptionGroup as group:
        for exc in _leaves(group):
            _log_crash(log, exc)
        return EXIT_CRASH
    except Exception as exc:  # noqa: BLE001 - the last place where it can be told
        _log_crash(log, exc)
        return EXIT_CRASH
    log.info("stopped", signal=stop.asked, took_s=stop.took_s())
    return 0


class _Stop:
    """Cancels the main task on the first signal; later ones change nothing. Ends the process if that takes too long."""

    def __init__(self, grace_s: float) -> None:
        self.asked = ""
        self._asked_at = 0.0
        self._grace_s = grace_s
        self._main: asyncio.Task[Any] | None = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask, number)

    def _ask(self, number: signal.Signals) -> None:
        if self.asked or self._main is None:
            return
        self.asked = number.name
        self._asked_at = time.monotonic()
        # A thread, because what hangs may be the loop itself.
        watchdog = threading.Timer(self._grace_s, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        self._main.cancel()

    def _give_up(self) -> None:
        structlog.get_logger("lifecycle").error(
            "did not stop in time; leaving as if killed",
            grace_s=self._grace_s,
            tasks=sorted(task.get_name() for task in asyncio.all_tasks(self._main.get_loop()) if not task.done())
            if self._main is not None
            else [],
        )
        os._exit(EXIT_CRASH)

    def took_s(self) -> float:
        return round(time.monotonic() - self._asked_at, 3) if self.asked else 0.0


def _log_crash(log: Any, exc: BaseException) -> None:
    """A domain's error says all in its text; anything else is a bug, whose place matters."""
    log.error("crashed", error=describe(exc), exc_info=None if isinstance(exc, DomainError) else exc)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found
