"""Instance metadata, as at http://100.100.100.200: facts of the instance that asks, as a tree.

The instance is the one that owns the source address, or the one named by the header X-Instance-Id: on one machine all
may come from 127.0.0.1. A session token is given, and not asked for: the real one asks only where the instance's owner
has said so.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.records import IN_USE, Instance, Interface
from lab.fake_alibaba.state import gateway

INSTANCE_HEADER: Final = "X-Instance-Id"
_TTL_HEADER: Final = "X-aliyun-ecs-metadata-token-ttl-seconds"
_LONGEST_TTL_S: Final = 21600

Tree = Mapping[str, "str | Tree"]


class Metadata:
    """Handlers of /latest.

    :param cloud: the cloud of now; a reset brings another one.
    """

    def __init__(self, cloud: Callable[[], Cloud]) -> None:
        self._cloud = cloud

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.put("/latest/api/token", self.token),
            web.get("/latest/meta-data", self.read),
            web.get("/latest/meta-data/{path:.*}", self.read),
        ]

    async def token(self, request: web.Request) -> web.Response:
        ttl = request.headers.get(_TTL_HEADER, "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= _LONGEST_TTL_S:
            raise web.HTTPBadRequest
        return web.Response(text=secrets.token_urlsafe(32))

    async def read(self, request: web.Request) -> web.Response:
        cloud = self._cloud()
        instance_id = request.headers.get(INSTANCE_HEADER) or _owner(cloud, request.remote or "")
        instance = cloud.instances.current.get(instance_id)
        if instance is None:
            raise web.HTTPNotFound(text=f"no instance {instance_id or 'with the address ' + (request.remote or '')}")
        node: str | Tree = _tree(cloud, instance)
        for part in request.match_info.get("path", "").strip("/").split("/"):
            if part:
                if isinstance(node, str) or part not in node:
                    raise web.HTTPNotFound
                node = node[part]
        if isinstance(node, str):
            return web.Response(text=node)
        return web.Response(text="\n".join(key if isinstance(each, str) else f"{key}/" for key, each in node.items()))


def _owner(cloud: Cloud, address: str) -> str:
    return next((each.instance_id for each in cloud.interfaces.current.values() if address in each.addresses), "")


def _tree(cloud: Cloud, instance: Instance) -> Tree:
    interfaces = [each for each in cloud.interfaces_of(instance.id) if each.status == IN_USE]
    macs: Tree = {each.mac: _interface(cloud, each) for each in interfaces}
    return {
        "image-id": instance.image_id,
        "instance": {"instance-type": instance.type.name},
        "instance-id": instance.id,
        "mac": interfaces[0].mac if interfaces else "",
        "network": {"interfaces": {"macs": macs}},
        "network-type": "vpc",
        "owner-account-id": cloud.account,
        "private-ipv4": instance.private_address,
        "region-id": cloud.region,
        "vpc-cidr-block": cloud.vpcs.current[instance.vpc_id].cidr,
        "vpc-id": instance.vpc_id,
        "vswitch-cidr-block": cloud.vswitches.current[instance.vswitch_id].cidr,
        "vswitch-id": instance.vswitch_id,
        "zone-id": instance.zone,
    }


def _interface(cloud: Cloud, interface: Interface) -> Tree:
    cidr = cloud.vswitches.current[interface.vswitch_id].cidr
    return {
        "gateway": gateway(cidr),
        "ipv4-prefixes": json.dumps(list(interface.prefixes)),
        "netmask": str(ipaddress.IPv4Network(cidr).netmask),
        "network-interface-id": interface.id,
        "primary-ip-address": interface.addresses[0],
        "private-ipv4s": json.dumps(list(interface.addresses)),
        "vpc-cidr-block": cloud.vpcs.current[interface.vpc_id].cidr,
        "vswitch-cidr-block": cidr,
        "vswitch-id": interface.vswitch_id,
    }
