"""The whole state as the admin endpoint tells it: what is so now, whatever readers of the API may see."""

from __future__ import annotations

from typing import Any

from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.records import Instance, Interface

Document = dict[str, Any]


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
                "free": cloud.spaces[each.id].free, "tags": dict(each.tags),
            }
            for each in cloud.subnets.current.values()
        ],
        "security_groups": [
            {"id": each.id, "name": each.name, "vpc_id": each.vpc_id, "tags": dict(each.tags)}
            for each in cloud.groups.current.values()
        ],
        "instances": [instance(each) for each in cloud.instances.current.values()],
        "interfaces": [interface(cloud, each) for each in cloud.interfaces.current.values()],
    }  # fmt: skip


def instance(record: Instance) -> Document:
    return {
        "id": record.id,
        "type": record.type.name,
        "state": record.state,
        "vpc_id": record.vpc_id,
        "subnet_id": record.subnet_id,
        "zone": record.zone,
        "primary_address": record.private_address,
        "tags": dict(record.tags),
    }


def interface(cloud: Cloud, record: Interface) -> Document:
    attachment = record.attachment
    return {
        "id": record.id,
        "mac": record.mac,
        "instance_id": attachment.instance_id if attachment else "",
        "attachment_id": attachment.id if attachment else "",
        "device_index": attachment.device_index if attachment else 0,
        "network_card": attachment.network_card if attachment else 0,
        "delete_on_termination": attachment.delete_on_termination if attachment else False,
        "subnet_id": record.subnet_id,
        "subnet_cidr": cloud.subnets.current[record.subnet_id].cidr,
        "vpc_id": record.vpc_id,
        "vpc_cidr": cloud.vpcs.current[record.vpc_id].cidr,
        "primary": record.addresses[0],
        "primary_address": record.addresses[0],
        "addresses": list(record.addresses),
        "prefixes": list(record.prefixes),
        "ipv6_addresses": list(record.ipv6_addresses),
        "ipv6_prefixes": list(record.ipv6_prefixes),
        "public_address": record.association.public_address if record.association else "",
        "status": record.status,
        "description": record.description,
        "tags": dict(record.tags),
    }
