"""The HTTP server: a cloud's own API, and the admin endpoint beside it."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Generic, NoReturn

from aiohttp import web

from lab.fake_cloud.admin import Admin, Changes
from lab.fake_cloud.errors import ApiError
from lab.fake_cloud.faults import CUT
from lab.fake_cloud.gate import C, Calls, Gate

LARGEST_BODY: Final = 4 << 20
LAUNCH_FIELDS: Final = frozenset({"type", "tags", "subnet_id", "security_group_ids", "private_address"})
GARBAGE: Final = b"<html><body>upstream went away</bo"


class Server(ABC, Generic[C]):
    """Serves one cloud at a time.

    :param make: makes the cloud to begin with, and each one after a reset.
    :cvar launch_fields: what `launch` understands.
    """

    launch_fields: frozenset[str] = LAUNCH_FIELDS

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self.gate: Gate[C] = Gate(make(), self.throttled, self.injected)
        self._due = asyncio.Event()
        self._changes = Changes(lambda: self.cloud.revision)
        self.gate.cloud.on_change = self._changed

    @property
    def cloud(self) -> C:
        return self.gate.cloud

    @abstractmethod
    def routes(self) -> list[web.AbstractRouteDef]:
        """The cloud's own API."""

    @abstractmethod
    def throttled(self) -> ApiError:
        """What a call beyond the rate is answered with."""

    @abstractmethod
    def injected(self, code: str, message: str) -> ApiError:
        """What a call is answered with that a fault has chosen."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The whole state: see lab.topology.read_state, which reads it."""

    @abstractmethod
    def launch(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Launches an instance (`type`, `tags`, `subnet_id`, `security_group_ids`, `private_address`) past throttling
        and faults, and tells it with its interfaces. Raises ApiError."""

    @abstractmethod
    def terminate(self, instance_id: str) -> None:
        """Raises ApiError."""

    def reset(self) -> None:
        """Begins anew with a fresh cloud; its revisions go on, so that who waits for one is told."""
        fresh = self._make()
        fresh.revision = self.cloud.revision + 1
        fresh.on_change = self._changed
        self.gate.cloud, self.gate.calls = fresh, Calls()
        self._changed()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=LARGEST_BODY)
        application.add_routes(self.routes())
        application.add_routes(Admin(self, self._changes).routes())
        application.cleanup_ctx.append(self._transitions)
        return application

    async def without_answer(self, request: web.Request, how: str) -> NoReturn:
        """Ends a call that is cut, or hangs until the client leaves."""
        transport = request.transport
        # aiohttp has no event for a client that leaves.
        while how != CUT and transport is not None and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        if transport is not None:
            transport.abort()
        raise asyncio.CancelledError

    def _changed(self) -> None:
        self._due.set()
        self._changes.notify()

    async def _transitions(self, application: web.Application) -> AsyncIterator[None]:
        """While serving, does what is due when it is due."""
        task = asyncio.create_task(self._settle())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _settle(self) -> None:
        while True:
            self._due.clear()
            self.cloud.settle()
            due_at = self.cloud.next_due_at()
            wait_s = None if due_at is None else max(0.0, due_at - self.cloud.clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._due.wait()


async def serve(server: Server[Any], listen: str) -> tuple[web.AppRunner, str]:
    """Starts to listen on "HOST:PORT" (port 0: any) or "unix:PATH". Returns what to clean up, and where it listens."""
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    if listen.startswith("unix:"):
        await web.UnixSite(runner, listen.removeprefix("unix:")).start()
        return runner, listen
    host, _, port = listen.rpartition(":")
    await web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024).start()
    bound = runner.addresses[0]
    return runner, f"{host}:{bound[1]}"
