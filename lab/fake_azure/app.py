"""ARM over HTTP: paths that name resources, JSON bodies, ETags, pages, long-running operations."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from lab.fake_azure import machines, render, state, writes
from lab.fake_azure.cloud import Cloud
from lab.fake_azure.errors import ApiError, missing
from lab.fake_azure.records import LongOperation, Machine, Nic
from lab.fake_cloud import paging
from lab.fake_cloud import server as base
from lab.fake_cloud.faults import MALFORMED
from lab.fake_cloud.gate import Special
from lab.fake_cloud.server import GARBAGE

PAGE_SIZE: Final = 100  # ARM chooses; who reads follows nextLink
_SUBSCRIPTION: Final = r"/subscriptions/(?P<subscription>[^/]+)"
_SCOPE: Final = _SUBSCRIPTION + r"(?:/resourcegroups/(?P<group>[^/]+))?/providers/"
_NETWORK: Final = _SCOPE + r"microsoft\.network/"
_COMPUTE: Final = _SCOPE + r"microsoft\.compute/"
_SET: Final = _COMPUTE + r"virtualmachinescalesets/(?P<set>[^/]+)/"


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: `path` in lower case, `body` of a PUT."""

    path: str
    group: str
    names: dict[str, str]
    query: dict[str, str]
    base_url: str
    if_match: str = ""
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    document: Any
    status: int = 200
    operation: LongOperation | None = None


Handler = Callable[[Cloud, Asked], Answer]
_ROUTES: list[tuple[str, str, re.Pattern[str], Handler]] = []


def _route(method: str, name: str, pattern: str) -> Callable[[Handler], Handler]:
    """:param name: of the call, for faults and counts, as "NetworkInterfaces.Put"."""

    def register(handler: Handler) -> Handler:
        _ROUTES.append((method, name, re.compile(pattern), handler))
        return handler

    return register


def _page(asked: Asked, records: Iterable[Any], tell: Callable[[Any], dict[str, Any]]) -> Answer:
    """One page of the records in the call's scope, with the next one's address."""
    inside = [each for each in records if not asked.group or f"/resourcegroups/{asked.group}/" in each.id]
    try:
        found, token = paging.page(inside, asked.path, PAGE_SIZE, asked.query.get("$skiptoken", ""))
    except paging.BadToken:
        raise ApiError("InvalidSkipToken", "The skip token is not valid.") from None
    document: dict[str, Any] = {"value": [tell(each) for each in found]}
    if token:
        again = urlencode({"api-version": asked.query["api-version"], "$skiptoken": token})
        document["nextLink"] = f"{asked.base_url}{asked.path}?{again}"
    return Answer(document)


# networks


@_route("GET", "VirtualNetworks.List", _NETWORK + "virtualnetworks")
def _networks(cloud: Cloud, asked: Asked) -> Answer:
    return _page(asked, cloud.networks.readable(), lambda each: render.network(cloud, each))


@_route("GET", "VirtualNetworks.Usages", _NETWORK + "virtualnetworks/(?P<name>[^/]+)/usages")
def _usages(cloud: Cloud, asked: Asked) -> Answer:
    return Answer(render.usages(cloud, cloud.seen(cloud.networks, asked.path.removesuffix("/usages"))))


@_route("GET", "NetworkSecurityGroups.List", _NETWORK + "networksecuritygroups")
def _groups(cloud: Cloud, asked: Asked) -> Answer:
    return _page(asked, cloud.groups.readable(), lambda each: render.security_group(cloud, each))


@_route("GET", "PublicIPPrefixes.List", _NETWORK + "publicipprefixes")
def _prefixes(cloud: Cloud, asked: Asked) -> Answer:
    return _page(asked, cloud.prefixes.readable(), lambda each: render.public_prefix(cloud, each))


@_route("GET", "PublicIPAddresses.List", _NETWORK + "publicipaddresses")
def _public(cloud: Cloud, asked: Asked) -> Answer:
    return _page(asked, cloud.public_addresses.readable(), lambda each: render.public_address(cloud, each))


@_route("PUT", "PublicIPAddresses.Put", _NETWORK + "publicipaddresses/(?P<name>[^/]+)")
def _put_public(cloud: Cloud, asked: Asked) -> Answer:
    record = writes.put_public_address(cloud, asked.path, asked.body or {})
    return Answer(render.public_address(cloud, record), 201)


# interfaces


@_route("GET", "NetworkInterfaces.List", _NETWORK + "networkinterfaces")
def _nics(cloud: Cloud, asked: Asked) -> Answer:
    records = (each for each in cloud.nics.readable() if "/microsoft.network/networkinterfaces/" in each.id)
    return _page(asked, records, lambda each: render.nic(cloud, each))


@_route("GET", "NetworkInterfaces.Get", _NETWORK + "networkinterfaces/(?P<name>[^/]+)")
def _nic(cloud: Cloud, asked: Asked) -> Answer:
    return Answer(render.nic(cloud, cloud.seen(cloud.nics, asked.path)))


@_route("PUT", "NetworkInterfaces.Put", _NETWORK + "networkinterfaces/(?P<name>[^/]+)")
def _put_nic(cloud: Cloud, asked: Asked) -> Answer:
    nic: Nic = cloud.find(cloud.nics, asked.path)
    operation = writes.put_nic(cloud, nic, asked.body or {}, asked.if_match)
    return Answer(render.nic(cloud, cloud.nics.current[nic.id]), operation=operation)


@_route("GET", "ScaleSetInterfaces.List", _SET + "networkinterfaces")
def _set_nics(cloud: Cloud, asked: Asked) -> Answer:
    scale_set = cloud.seen(cloud.scale_sets, asked.path.removesuffix("/networkinterfaces"))
    records = (each for each in cloud.nics.readable() if each.id.startswith(f"{scale_set.id}/"))
    return _page(asked, records, lambda each: render.nic(cloud, each))


@_route("GET", "ScaleSetMachineInterfaces.List", _SET + "virtualmachines/(?P<index>[^/]+)/networkinterfaces")
def _machine_nics(cloud: Cloud, asked: Asked) -> Answer:
    machine = cloud.seen(cloud.machines, asked.path.removesuffix("/networkinterfaces"))
    records = (each for each in cloud.nics.readable() if each.machine_id == machine.id)
    return _page(asked, records, lambda each: render.nic(cloud, each))


@_route("GET", "ScaleSetInterfaces.Get", _SET + "virtualmachines/(?P<index>[^/]+)/networkinterfaces/(?P<name>[^/]+)")
def _machine_nic(cloud: Cloud, asked: Asked) -> Answer:
    return Answer(render.nic(cloud, cloud.seen(cloud.nics, asked.path)))


# virtual machines


@_route("GET", "VirtualMachines.List", _COMPUTE + "virtualmachines")
def _machines(cloud: Cloud, asked: Asked) -> Answer:
    records = (each for each in cloud.machines.readable() if not each.uniform)
    return _page(asked, records, lambda each: render.machine(cloud, each, shout=True))


@_route("GET", "VirtualMachines.Get", _COMPUTE + "virtualmachines/(?P<name>[^/]+)")
def _machine(cloud: Cloud, asked: Asked) -> Answer:
    return Answer(render.machine(cloud, cloud.seen(cloud.machines, asked.path)))


@_route("GET", "ScaleSets.List", _COMPUTE + "virtualmachinescalesets")
def _sets(cloud: Cloud, asked: Asked) -> Answer:
    return _page(asked, cloud.scale_sets.readable(), lambda each: render.scale_set(cloud, each))


@_route("GET", "ScaleSetMachines.List", _SET + "virtualmachines")
def _set_machines(cloud: Cloud, asked: Asked) -> Answer:
    scale_set = cloud.seen(cloud.scale_sets, asked.path.removesuffix("/virtualmachines"))
    if not scale_set.uniform:
        return Answer({"value": []})
    records = (each for each in cloud.machines.readable() if each.scale_set_id == scale_set.id)
    return _page(asked, records, lambda each: render.machine(cloud, each, shout=True))


@_route("GET", "ScaleSetMachines.Get", _SET + "virtualmachines/(?P<index>[^/]+)")
def _set_machine(cloud: Cloud, asked: Asked) -> Answer:
    user_data = asked.query.get("$expand", "").lower() == "userdata"
    return Answer(render.machine(cloud, cloud.seen(cloud.machines, asked.path), user_data=user_data))


@_route("PUT", "ScaleSetMachines.Put", _SET + "virtualmachines/(?P<index>[^/]+)")
def _put_set_machine(cloud: Cloud, asked: Asked) -> Answer:
    machine: Machine = cloud.find(cloud.machines, asked.path)
    operation = writes.put_machine(cloud, machine, asked.body or {}, asked.if_match)
    return Answer(render.machine(cloud, cloud.machines.current[machine.id]), operation=operation)


@_route("GET", "ResourceSkus.List", _COMPUTE + "skus")
def _skus(cloud: Cloud, asked: Asked) -> Answer:
    return Answer(render.skus(cloud))


@_route("GET", "Operations.Get", _SCOPE + r"microsoft\.[a-z]+/locations/(?P<place>[^/]+)/operations/(?P<id>[^/]+)")
def _operation(cloud: Cloud, asked: Asked) -> Answer:
    record = cloud.operations.current.get(asked.names["id"])
    if record is None:
        raise missing(asked.path)
    document: dict[str, Any] = {"status": record.status}
    if record.status == "Failed":
        document["error"] = {"code": record.code, "message": record.message}
    return Answer(document)


class Server(base.Server[Cloud]):
    """A fake ARM over HTTP.

    :ivar kinds: of machines that are launched in turn, where no kind is asked for.
    """

    launch_fields = base.LAUNCH_FIELDS | {"kind", "zone", "interfaces"}
    kinds: tuple[str, ...] = ("single",)

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.route("*", "/subscriptions/{path:.*}", self.serve)]

    def throttled(self) -> ApiError:
        return ApiError("TooManyRequests", "The request is being throttled.", retry_after_s=2)

    def injected(self, code: str, message: str) -> ApiError:
        return ApiError(code, message)

    def state(self) -> dict[str, Any]:
        return state.document(self.cloud)

    def launch(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`kind` is single, flexible or uniform."""
        machine = machines.launch(
            self.cloud,
            asked.get("type") or "Standard_D4s_v5",
            kind=asked.get("kind") or self.kinds[len(self.cloud.machines.current) % len(self.kinds)],
            subnet_id=asked.get("subnet_id", ""),
            private_address=asked.get("private_address", ""),
            group_ids=asked.get("security_group_ids", ()),
            zone=asked.get("zone", "1"),
            tags=asked.get("tags"),
            interfaces=asked.get("interfaces", 1),
        )
        interfaces = [state.interface(self.cloud, each) for each in self.cloud.nics_at(machine.id)]
        return {**state.instance(self.cloud, machine), "interfaces": interfaces}

    def terminate(self, instance_id: str) -> None:
        self.cloud.remove_machine(self.cloud.find(self.cloud.machines, "/" + instance_id.lstrip("/")).id)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid.uuid4())
        headers = {"x-ms-request-id": request_id}
        try:
            answer = await self._answer(request)
        except ApiError as error:
            if error.retry_after_s is not None:
                headers["Retry-After"] = str(error.retry_after_s)
            return web.json_response(_refusal(error, request.path.lower()), status=error.status, headers=headers)
        except Special as special:
            if str(special) == MALFORMED:
                return web.Response(body=GARBAGE, content_type="application/json", headers=headers)
            await self.without_answer(request, str(special))
        if answer.operation is not None:
            kind = "microsoft.network" if "/microsoft.network/" in request.path.lower() else "microsoft.compute"
            place = f"/subscriptions/{self.cloud.account}/providers/{kind}/locations/{self.cloud.region}"
            version = urlencode({"api-version": request.query["api-version"]})
            headers["Azure-AsyncOperation"] = f"{_base(request)}{place}/operations/{answer.operation.id}?{version}"
            headers["Retry-After"] = "1"
        return web.json_response(answer.document, status=answer.status, headers=headers)

    async def _answer(self, request: web.Request) -> Answer:
        path = request.path.lower().rstrip("/")
        name, handler, names = _find(request.method, path)
        body: dict[str, Any] | None = None
        if request.method == "PUT":
            try:
                body = json.loads(await request.text())
            except ValueError:
                raise ApiError("InvalidRequestContent", "The request content is not valid JSON.") from None
            if not isinstance(body, dict):
                raise ApiError("InvalidRequestContent", "The request content is not an object.")
        asked = Asked(
            path, names.get("group") or "", {key: value or "" for key, value in names.items()}, dict(request.query),
            _base(request), request.headers.get("If-Match", ""), body,
        )  # fmt: skip

        def check() -> None:
            if "api-version" not in request.query:
                raise ApiError("MissingApiVersionParameter", "The api-version query parameter is required.")
            if names["subscription"] != self.cloud.account.lower():
                raise ApiError("SubscriptionNotFound", f"The subscription '{names['subscription']}' was not found.")

        operation_class = "mutate" if request.method == "PUT" else "read"
        return await self.gate.call(name, operation_class, lambda: handler(self.cloud, asked), check)


def _find(method: str, path: str) -> tuple[str, Handler, dict[str, str | None]]:
    found = None
    for known, name, pattern, handler in _ROUTES:
        matched = pattern.fullmatch(path)
        if matched and known == method:
            return name, handler, matched.groupdict()
        found = found or matched
    if found:
        raise ApiError("MethodNotAllowed", f"The method {method} is not one of those that this ARM answers here.")
    raise ApiError("NotFound", f"No resource of this kind is known here: {path}")


def _refusal(error: ApiError, path: str) -> dict[str, Any]:
    """Compute hides among details that it throttles.
    https://learn.microsoft.com/troubleshoot/azure/virtual-machines/troubleshooting-throttling-errors
    """
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.code == "TooManyRequests" and "/microsoft.compute/" in path:
        told = {"code": "OperationNotAllowed", "message": "Too many requests of this subscription.", "details": [told]}
    return {"error": told}


def _base(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"
