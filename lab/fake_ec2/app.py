"""The HTTP server: EC2's query protocol at /, the admin endpoint and instance metadata beside it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qsl

from aiohttp import web

from lab.fake_ec2.admin import Admin, Changes
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.faults import CUT, MALFORMED
from lab.fake_ec2.gate import Calls, Gate, Special
from lab.fake_ec2.metadata import Metadata
from lab.fake_ec2.protocol import rendering

_LARGEST_BODY = 4 << 20
_GARBAGE = b"<html><body>upstream went away</bo"


class Server:
    """Serves one cloud at a time.

    :param make: makes the cloud to begin with, and each one after a reset.
    """

    def __init__(self, make: Callable[[], Cloud]) -> None:
        self._make = make
        self.gate = Gate(make())
        self._due = asyncio.Event()
        self._changes = Changes(self.gate)
        self.gate.cloud.on_change = self._changed

    @property
    def cloud(self) -> Cloud:
        return self.gate.cloud

    def reset(self) -> None:
        """Begins anew with a fresh cloud; its revisions go on, so that who waits for one is told."""
        fresh = self._make()
        fresh.revision = self.cloud.revision + 1
        fresh.on_change = self._changed
        self.gate.cloud, self.gate.calls = fresh, Calls()
        self._changed()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=_LARGEST_BODY)
        application.add_routes([web.post("/", self.query), web.get("/", self.query)])
        application.add_routes(Admin(self.gate, self._changes, self.reset).routes())
        application.add_routes(Metadata(lambda: self.cloud).routes())
        application.cleanup_ctx.append(self._transitions)
        return application

    async def query(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid.uuid4())
        text = await request.text() if request.method == "POST" else request.query_string
        fields = parse_qsl(text, keep_blank_values=True)
        action = next((value for key, value in fields if key == "Action"), "")
        try:
            answer = await self.gate.call(action, fields)
            body, status = rendering.answer(action, answer, request_id), 200
        except ApiError as error:
            body, status = rendering.error(error, request_id), error.status
        except Special as special:
            return await self._without_answer(request, str(special))
        return _response(body, status, request_id)

    async def _without_answer(self, request: web.Request, how: str) -> web.StreamResponse:
        if how == MALFORMED:
            return _response(_GARBAGE, 200, "")
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


def _response(body: bytes, status: int, request_id: str) -> web.Response:
    headers = {"x-amzn-requestid": request_id, "Server": "AmazonEC2"}
    return web.Response(body=body, status=status, content_type="text/xml", charset="utf-8", headers=headers)


async def serve(server: Server, listen: str) -> tuple[web.AppRunner, str]:
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
