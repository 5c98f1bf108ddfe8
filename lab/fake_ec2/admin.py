"""The admin endpoint: the state with long polls, instances, faults, and the count of calls. JSON, at /_admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from lab.fake_ec2 import state
from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.faults import BadFaults, read_faults
from lab.fake_ec2.gate import Calls, Gate

_LONGEST_WAIT_S = 300.0
_LAUNCH = {"subnet_id": "SubnetId", "security_group_ids": "SecurityGroupIds", "private_address": "PrivateIpAddress"}


class Changes:
    """Wakes who waits for a revision later than the one he knows."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, revision: int, wait_s: float) -> None:
        """Returns when the cloud is past `revision`, or after `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                while self._gate.cloud.revision <= revision:
                    await self._changed.wait()
        except TimeoutError:
            pass


class Admin:
    """Handlers of the admin endpoint."""

    def __init__(self, gate: Gate, changes: Changes, reset: Callable[[], None]) -> None:
        self._gate = gate
        self._changes = changes
        self._reset = reset
        self._encoded: tuple[int, bytes] = (0, b"")

    @property
    def _cloud(self) -> Cloud:
        return self._gate.cloud

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/_admin/state", self.state),
            web.post("/_admin/instances", self.launch),
            web.delete("/_admin/instances/{id}", self.terminate),
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
            self._encoded = (self._cloud.revision, json.dumps(state.document(self._cloud)).encode())
        return web.Response(body=self._encoded[1], content_type="application/json")

    async def launch(self, request: web.Request) -> web.Response:
        """Launches past throttling and faults: who runs the lab is not a client of the cloud."""
        asked = await _body(request)
        known = {"type", "tags", *_LAUNCH}
        if unknown := sorted(set(asked) - known):
            raise _refused(f"{unknown[0]}: no such field; the fields are {', '.join(sorted(known))}")
        tags = [{"Key": key, "Value": value} for key, value in asked.get("tags", {}).items()]
        parameters: dict[str, Any] = {
            "ImageId": "ami-00000000000000000",
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceType": asked.get("type", "m5.large"),
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        parameters |= {theirs: asked[ours] for ours, theirs in _LAUNCH.items() if asked.get(ours)}
        instance_id = self._perform("RunInstances", parameters)["Instances"][0]["InstanceId"]
        interfaces = self._cloud.interfaces_of(instance_id)
        document = state.instance(self._cloud.instances.current[instance_id])
        return web.json_response(
            {**document, "interfaces": [state.interface(self._cloud, each) for each in interfaces]}, status=201
        )

    async def terminate(self, request: web.Request) -> web.Response:
        self._perform("TerminateInstances", {"InstanceIds": [request.match_info["id"]]})
        return web.Response(status=204)

    def _perform(self, action: str, parameters: dict[str, Any]) -> Any:
        self._cloud.settle()
        try:
            return ACTIONS[action].perform(self._cloud, parameters)
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
        self._reset()
        return web.Response(status=204)

    async def calls(self, request: web.Request) -> web.Response:
        return web.json_response(self._gate.calls.document())

    async def reset_calls(self, request: web.Request) -> web.Response:
        self._gate.calls = Calls()
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
