"""The admin endpoint: the state with long polls, instances, faults, and the count of calls. JSON, at /_admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lab.fake_cloud.cloud import BaseCloud
from lab.fake_cloud.errors import ApiError
from lab.fake_cloud.faults import BadFaults, read_faults
from lab.fake_cloud.gate import Calls

if TYPE_CHECKING:
    from lab.fake_cloud.server import Server

_LONGEST_WAIT_S = 300.0


class Changes:
    """Wakes who waits for a revision later than the one he knows.

    :param revision: of the cloud now.
    """

    def __init__(self, revision: Callable[[], int]) -> None:
        self._revision = revision
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, revision: int, wait_s: float) -> None:
        """Returns when the cloud is past `revision`, or after `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                while self._revision() <= revision:
                    await self._changed.wait()
        except TimeoutError:
            pass


class Admin:
    """Handlers of the admin endpoint."""

    def __init__(self, server: Server[Any], changes: Changes) -> None:
        self._server = server
        self._changes = changes
        self._encoded: tuple[int, bytes] = (0, b"")

    @property
    def _cloud(self) -> BaseCloud:
        cloud: BaseCloud = self._server.cloud
        return cloud

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/_admin/state", self.state),
            web.post("/_admin/instances", self.launch),
            web.delete("/_admin/instances/{id:.+}", self.terminate),
            web.get("/_admin/faults", self.faults),
            web.put("/_admin/faults", self.set_faults),
            web.patch("/_admin/faults", self.merge_faults),
            web.get("/_admin/calls", self.calls),
            web.delete("/_admin/calls", self.reset_calls),
            web.post("/_admin/reset", self.reset),
        ]

    async def state(self, request: web.Request) -> web.Response:
        revision, wait_s = _number(request, "revision", int, 0), _number(request, "wait_s", float, 0.0)
        if wait_s > 0:
            await self._changes.after(revision, min(wait_s, _LONGEST_WAIT_S))
        if self._encoded[0] != self._cloud.revision:
            self._encoded = (self._cloud.revision, json.dumps(self._server.state()).encode())
        return web.Response(body=self._encoded[1], content_type="application/json")

    async def launch(self, request: web.Request) -> web.Response:
        """Launches past throttling and faults: who runs the lab is not a client of the cloud."""
        asked = await _body(request)
        if unknown := sorted(set(asked) - self._server.launch_fields):
            raise _refused(
                f"{unknown[0]}: no such field; the fields are {', '.join(sorted(self._server.launch_fields))}"
            )
        return web.json_response(self._perform(lambda: self._server.launch(asked)), status=201)

    async def terminate(self, request: web.Request) -> web.Response:
        instance_id = request.match_info["id"]
        self._perform(lambda: self._server.terminate(instance_id))
        return web.Response(status=204)

    def _perform(self, act: Callable[[], Any]) -> Any:
        self._cloud.settle()
        try:
            return act()
        except ApiError as error:
            raise _refused(error.message, error.code) from None

    async def faults(self, request: web.Request) -> web.Response:
        return web.json_response(self._cloud.faults.document())

    async def set_faults(self, request: web.Request) -> web.Response:
        """What is not named is switched off."""
        return self._set(await _body(request))

    async def merge_faults(self, request: web.Request) -> web.Response:
        """What is not named stays as it is."""
        return self._set({**self._cloud.faults.document(), **await _body(request)})

    def _set(self, document: dict[str, Any]) -> web.Response:
        try:
            self._cloud.faults = read_faults(document)
        except BadFaults as error:
            raise _refused(str(error)) from None
        return web.json_response(self._cloud.faults.document())

    async def reset(self, request: web.Request) -> web.Response:
        self._server.reset()
        return web.Response(status=204)

    async def calls(self, request: web.Request) -> web.Response:
        return web.json_response(self._server.gate.calls.document())

    async def reset_calls(self, request: web.Request) -> web.Response:
        self._server.gate.calls = Calls()
        return web.Response(status=204)


def _refused(message: str, code: str = "BadRequest") -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"code": code, "message": message}), content_type="application/json")


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.text() or "{}")
    except ValueError as error:
        raise _refused(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _refused("the body must be an object")
    return document


def _number(request: web.Request, name: str, kind: Callable[[str], Any], default: Any) -> Any:
    try:
        return kind(request.query.get(name, default))
    except ValueError:
        raise _refused(f"{name}: must be a number") from None
