"""The whole state as the admin endpoint tells it: what is so now, whatever readers of the API may see."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.records import Instance, Interface

Document = dict[str, Any]
# In the words that all fake clouds use.
_STATUS: Final = {"InUse": "in-use"}


def document(cloud: Cloud) -> Document:
    """JSON-able. `addresses` of an interface has all its IPv4 addresses, the primary one first."""
    return {
        "revision": cloud.revision,
        "account": cloud.account,
        "region": cloud.region,
        "vpcs": [{"id": each.id, "cidr": each.cidr} for each in cloud.vpcs.current.values()],
        "subnets": [
            {
                "id": each.id, "cidr": each.cidr, "zone": each.zone, "vpc_id": each.vpc_id,
                "free": cloud.spaces[each.id].free, "tags": dict(each.tags), "gateway": gateway(each.cidr),
            }
            for each in cloud.vswitches.current.values()
        ],
        "security_groups": [
            {"id": each.id, "name": each.name, "vpc_id": each.vpc_id, "tags": dict(each.tags)}
            for each in cloud.groups.current.values()
        ],
        "instances": [instance(each) for each in cloud.instances.current.values()],
        "interfaces": [interface(cloud, each) for each in cloud.interfaces.current.values()],
    }  # fmt: skip


def gateway(cidr: str) -> str:
    """The third-last address of a vSwitch."""
    return str(ipaddress.IPv4Network(cidr)[-3])


def instance(record: Instance) -> Document:
    return {
        "id": record.id,
        "type": record.type.name,
        "state": record.state.lower(),
        "vpc_id": record.vpc_id,
        "subnet_id": record.vswitch_id,
        "zone": record.zone,
        "primary_address": record.private_address,
        "tags": dict(record.tags),
    }


def interface(cloud: Cloud, record: Interface) -> Document:
    cidr = cloud.vswitches.current[record.vswitch_id].cidr
    return {
        "id": record.id,
        "mac": record.mac,
        "instance_id": record.instance_id,
        "attachment_id": f"{record.instance_id}/{record.id}" if record.instance_id else "",
        "device_index": record.place,
        "network_card": record.network_card,
        "delete_on_termination": record.delete_on_release,
        "subnet_id": record.vswitch_id,
        "subnet_cidr": cidr,
        "gateway": gateway(cidr),
        "vpc_id": record.vpc_id,
        "vpc_cidr": cloud.vpcs.current[record.vpc_id].cidr,
        "primary": record.addresses[0],
        "primary_address": record.addresses[0],
        "addresses": list(record.addresses),
        "prefixes": list(record.prefixes),
        "ipv6_addresses": [],
        "ipv6_prefixes": [],
        "public_address": cloud.eips.current[record.eip_id].address if record.eip_id else "",
        "status": _STATUS.get(record.status, record.status.lower()),
        "description": record.description,
        "tags": dict(record.tags),
    }
