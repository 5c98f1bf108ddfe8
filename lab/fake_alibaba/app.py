"""The RPC protocol of ECS and VPC at /: the call's name in a header, its parameters in the query, answers in JSON.

Instance metadata stands beside it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from lab.fake_alibaba import state
from lab.fake_alibaba.actions import ACTIONS
from lab.fake_alibaba.actions.registry import Action
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError
from lab.fake_alibaba.metadata import Metadata
from lab.fake_alibaba.parameters import unflatten
from lab.fake_cloud import server as base
from lab.fake_cloud.faults import MALFORMED
from lab.fake_cloud.gate import Special
from lab.fake_cloud.server import GARBAGE

_FORM: Final = "application/x-www-form-urlencoded"


class Server(base.Server[Cloud]):
    """A fake Alibaba Cloud over HTTP."""

    def routes(self) -> list[web.AbstractRouteDef]:
        own: list[web.AbstractRouteDef] = [web.post("/", self.rpc), web.get("/", self.rpc)]
        return own + Metadata(lambda: self.cloud).routes()

    def throttled(self) -> ApiError:
        return ApiError("Throttling.User", "Request was denied due to user flow control.")

    def injected(self, code: str, message: str) -> ApiError:
        return ApiError(code, message)

    def state(self) -> dict[str, Any]:
        return state.document(self.cloud)

    def launch(self, asked: dict[str, Any]) -> dict[str, Any]:
        vswitch_id = asked.get("subnet_id") or next(iter(self.cloud.vswitches.current), "")
        network = self.cloud.vswitches.current.get(vswitch_id)
        groups = [each.id for each in self.cloud.groups.current.values() if network and each.vpc_id == network.vpc_id]
        parameters: dict[str, Any] = {
            "ImageId": "aliyun_3_x64_20G_alibase.vhd",
            "InstanceType": asked.get("type", "ecs.g7.large"),
            "VSwitchId": vswitch_id,
            "SecurityGroupIds": list(asked.get("security_group_ids") or groups[:1]),
            "Tag": [{"Key": key, "Value": value} for key, value in asked.get("tags", {}).items()],
        }
        if asked.get("private_address"):
            parameters["PrivateIpAddress"] = asked["private_address"]
        answer = ACTIONS["RunInstances"].perform(self.cloud, parameters)
        (instance_id,) = answer["InstanceIdSets"]["InstanceIdSet"]
        interfaces = [state.interface(self.cloud, each) for each in self.cloud.interfaces_of(instance_id)]
        return {**state.instance(self.cloud.instances.current[instance_id]), "interfaces": interfaces}

    def terminate(self, instance_id: str) -> None:
        ACTIONS["DeleteInstance"].perform(self.cloud, {"InstanceId": instance_id, "Force": "true"})

    async def rpc(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid.uuid4()).upper()
        fields = parse_qsl(request.query_string, keep_blank_values=True)
        if request.content_type == _FORM:
            fields += parse_qsl(await request.text(), keep_blank_values=True)
        try:
            answer = await self._call(request, fields)
            return _response({**answer, "RequestId": request_id}, 200, request_id)
        except ApiError as error:
            return _response(_refusal(error, request, request_id), error.status, request_id)
        except Special as special:
            if str(special) == MALFORMED:
                return web.Response(body=GARBAGE, content_type="text/html")
            await self.without_answer(request, str(special))

    async def _call(self, request: web.Request, fields: list[tuple[str, str]]) -> Mapping[str, Any]:
        named = dict(fields)
        action = _action(
            request.headers.get("x-acs-action") or named.get("Action", ""),
            request.headers.get("x-acs-version") or named.get("Version", ""),
        )
        parameters: dict[str, Any] = {}

        def check() -> None:
            if "Authorization" not in request.headers and not named.get("Signature"):
                raise ApiError("IncompleteSignature", "The request signature does not conform to Aliyun standards.")
            parameters.update(unflatten(fields))
            if parameters.get("RegionId", self.cloud.region) != self.cloud.region:
                raise ApiError("InvalidRegionId.NotFound", "The specified RegionId does not exist.")

        def perform() -> Mapping[str, Any]:
            return action.perform(self.cloud, parameters)

        return await self.gate.call(action.name, action.operation_class, perform, check)


def _action(name: str, version: str) -> Action:
    found = ACTIONS.get(name)
    if found is None or found.version != version:
        raise ApiError("InvalidAction.NotFound", f"Specified api is not found: {name} of version {version}.")
    return found


def _refusal(error: ApiError, request: web.Request, request_id: str) -> dict[str, str]:
    return {"RequestId": request_id, "HostId": request.host, "Code": error.code, "Message": error.message}


def _response(document: Mapping[str, Any], status: int, request_id: str) -> web.Response:
    body = json.dumps(document).encode()
    headers = {"x-acs-request-id": request_id}
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8", headers=headers)
