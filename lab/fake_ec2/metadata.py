"""Instance metadata, version 2 (IMDSv2): a session token by PUT, then facts of the instance that asks, as a tree.

The instance is the one that owns the source address, or the one named by the header X-Instance-Id: on one machine all
may come from 127.0.0.1.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.records import Instance, Interface

INSTANCE_HEADER: Final = "X-Instance-Id"
_TTL_HEADER: Final = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER: Final = "X-aws-ec2-metadata-token"  # noqa: S105
_LONGEST_TTL_S: Final = 21600

Tree = Mapping[str, "str | Tree"]


class Metadata:
    """Handlers of /latest.

    :param cloud: the cloud of now; a reset brings another one.
    """

    def __init__(self, cloud: Callable[[], Cloud]) -> None:
        self._cloud = cloud
        # Instance and end of life by token.
        self._tokens: dict[str, tuple[str, float]] = {}

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.put("/latest/api/token", self.token),
            web.get("/latest/meta-data", self.read),
            web.get("/latest/meta-data/{path:.*}", self.read),
            web.get("/latest/dynamic/instance-identity/document", self.document),
        ]

    async def token(self, request: web.Request) -> web.Response:
        ttl = request.headers.get(_TTL_HEADER, "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= _LONGEST_TTL_S:
            raise web.HTTPBadRequest
        now = self._cloud().clock()
        self._tokens = {key: each for key, each in self._tokens.items() if each[1] > now}
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (self._asking(request).id, now + int(ttl))
        return web.Response(text=token, headers={_TTL_HEADER: ttl})

    async def read(self, request: web.Request) -> web.Response:
        node: str | Tree = _tree(self._cloud(), self._authorised(request))
        for part in request.match_info.get("path", "").strip("/").split("/"):
            if part:
                if isinstance(node, str) or part not in node:
                    raise web.HTTPNotFound
                node = node[part]
        if isinstance(node, str):
            return web.Response(text=node)
        return web.Response(text="\n".join(key if isinstance(each, str) else f"{key}/" for key, each in node.items()))

    async def document(self, request: web.Request) -> web.Response:
        instance, cloud = self._authorised(request), self._cloud()
        return web.json_response(
            {
                "accountId": cloud.account,
                "architecture": instance.type.architectures[-1],
                "availabilityZone": instance.zone,
                "imageId": instance.image_id,
                "instanceId": instance.id,
                "instanceType": instance.type.name,
                "privateIp": instance.private_address,
                "region": cloud.region,
                "version": "2017-09-30",
            }
        )

    def _authorised(self, request: web.Request) -> Instance:
        """The instance that the token was given to."""
        cloud = self._cloud()
        instance_id, until = self._tokens.get(request.headers.get(_TOKEN_HEADER, ""), ("", 0.0))
        instance = cloud.instances.current.get(instance_id)
        if instance is None or until <= cloud.clock() or instance.state == "terminated":
            raise web.HTTPUnauthorized
        return instance

    def _asking(self, request: web.Request) -> Instance:
        cloud = self._cloud()
        instance_id = request.headers.get(INSTANCE_HEADER) or _owner(cloud, request.remote or "")
        instance = cloud.instances.current.get(instance_id)
        if instance is None or instance.state == "terminated":
            raise web.HTTPNotFound(text=f"no instance {instance_id or 'with the address ' + (request.remote or '')}")
        return instance


def _owner(cloud: Cloud, address: str) -> str:
    for interface in cloud.interfaces.current.values():
        if interface.attachment is not None and address in interface.addresses:
            return interface.attachment.instance_id
    return ""


def _tree(cloud: Cloud, instance: Instance) -> Tree:
    interfaces = [each for each in cloud.interfaces_of(instance.id) if each.status == "in-use"]
    macs: Tree = {each.mac: _interface(cloud, each) for each in interfaces}
    return {
        "ami-id": instance.image_id,
        "hostname": f"ip-{instance.private_address.replace('.', '-')}.{cloud.region}.compute.internal",
        "instance-id": instance.id,
        "instance-type": instance.type.name,
        "local-ipv4": instance.private_address,
        "mac": interfaces[0].mac if interfaces else "",
        "network": {"interfaces": {"macs": macs}},
        "placement": {"availability-zone": instance.zone, "region": cloud.region},
        "reservation-id": instance.reservation_id,
        "security-groups": "\n".join(cloud.groups.current[each].name for each in instance.group_ids),
    }


def _interface(cloud: Cloud, interface: Interface) -> Tree:
    assert interface.attachment is not None
    facts = {
        "device-number": str(interface.attachment.device_index),
        "interface-id": interface.id,
        "local-ipv4s": "\n".join(interface.addresses),
        "mac": interface.mac,
        "owner-id": cloud.account,
        "security-group-ids": "\n".join(interface.group_ids),
        "subnet-id": interface.subnet_id,
        "subnet-ipv4-cidr-block": cloud.subnets.current[interface.subnet_id].cidr,
        "vpc-id": interface.vpc_id,
        "vpc-ipv4-cidr-block": cloud.vpcs.current[interface.vpc_id].cidr,
        "vpc-ipv4-cidr-blocks": cloud.vpcs.current[interface.vpc_id].cidr,
    }
    if interface.prefixes:
        facts["ipv4-prefix"] = "\n".join(interface.prefixes)
    if interface.ipv6_addresses:
        facts["ipv6s"] = "\n".join(interface.ipv6_addresses)
    return facts
