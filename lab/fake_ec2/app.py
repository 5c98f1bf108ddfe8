"""EC2's query protocol at /, and instance metadata beside it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from lab.fake_cloud import server as base
from lab.fake_cloud.faults import MALFORMED
from lab.fake_cloud.gate import Special
from lab.fake_cloud.server import GARBAGE
from lab.fake_ec2 import state
from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.actions.registry import Action
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.metadata import Metadata
from lab.fake_ec2.protocol import rendering
from lab.fake_ec2.protocol.model import operation_names
from lab.fake_ec2.protocol.parsing import parse

_LAUNCH = {"subnet_id": "SubnetId", "security_group_ids": "SecurityGroupIds", "private_address": "PrivateIpAddress"}


class Server(base.Server[Cloud]):
    """A fake EC2 over HTTP."""

    def routes(self) -> list[web.AbstractRouteDef]:
        own: list[web.AbstractRouteDef] = [web.post("/", self.query), web.get("/", self.query)]
        return own + Metadata(lambda: self.cloud).routes()

    def throttled(self) -> ApiError:
        return ApiError("RequestLimitExceeded", "Request limit exceeded.")

    def injected(self, code: str, message: str) -> ApiError:
        return ApiError(code, message)

    def state(self) -> dict[str, Any]:
        return state.document(self.cloud)

    def launch(self, asked: dict[str, Any]) -> dict[str, Any]:
        tags = [{"Key": key, "Value": value} for key, value in asked.get("tags", {}).items()]
        parameters: dict[str, Any] = {
            "ImageId": "ami-00000000000000000",
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceType": asked.get("type", "m5.large"),
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        parameters |= {theirs: asked[ours] for ours, theirs in _LAUNCH.items() if asked.get(ours)}
        answer = ACTIONS["RunInstances"].perform(self.cloud, parameters)
        instance_id = answer["Instances"][0]["InstanceId"]
        document = state.instance(self.cloud.instances.current[instance_id])
        interfaces = self.cloud.interfaces_of(instance_id)
        return {**document, "interfaces": [state.interface(self.cloud, each) for each in interfaces]}

    def terminate(self, instance_id: str) -> None:
        ACTIONS["TerminateInstances"].perform(self.cloud, {"InstanceIds": [instance_id]})

    async def query(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid.uuid4())
        text = await request.text() if request.method == "POST" else request.query_string
        fields = parse_qsl(text, keep_blank_values=True)
        name = next((value for key, value in fields if key == "Action"), "")
        try:
            answer = await self._call(_action(name), fields)
            body, status = rendering.answer(name, answer, request_id), 200
        except ApiError as error:
            body, status = rendering.error(error, request_id), error.status
        except Special as special:
            if str(special) == MALFORMED:
                return _response(GARBAGE, 200, "")
            await self.without_answer(request, str(special))
        return _response(body, status, request_id)

    async def _call(self, action: Action, fields: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
        parameters: dict[str, Any] = {}

        def check() -> None:
            parameters.update(parse(action.name, fields))

        def perform() -> Mapping[str, Any]:
            return action.perform(self.cloud, parameters)

        return await self.gate.call(action.name, action.operation_class, perform, check)


def _action(name: str) -> Action:
    if not name:
        raise ApiError("MissingAction", "The request must contain the parameter Action")
    if name in ACTIONS:
        return ACTIONS[name]
    if name in operation_names():
        raise ApiError("InvalidAction", f"The action {name} is not one of those that this EC2 answers.")
    raise ApiError("InvalidAction", f"The action {name} is not valid for this web service.")


def _response(body: bytes, status: int, request_id: str) -> web.Response:
    headers = {"x-amzn-requestid": request_id, "Server": "AmazonEC2"}
    return web.Response(body=body, status=status, content_type="text/xml", charset="utf-8", headers=headers)
