"""The whole state as the admin endpoint tells it: what is so now, whatever readers of the API may see."""

from __future__ import annotations

from typing import Any

from lab.fake_azure.cloud import Cloud
from lab.fake_azure.records import Machine, Nic

Document = dict[str, Any]


def document(cloud: Cloud) -> Document:
    """JSON-able; see lab.topology.read_state."""
    networks = list(cloud.networks.current.values())
    return {
        "revision": cloud.revision,
        "account": cloud.account,
        "region": cloud.region,
        "vpcs": [{"id": each.id, "cidr": each.cidr} for each in networks],
        "subnets": [
            {
                "id": subnet.id, "cidr": subnet.cidr, "zone": cloud.region, "vpc_id": each.id,
                "free": cloud.spaces[subnet.id].free, "tags": {},
            }
            for each in networks
            for subnet in each.subnets
        ],
        "security_groups": [
            {"id": each.id, "name": each.name, "vpc_id": "", "tags": dict(each.tags)}
            for each in cloud.groups.current.values()
        ],
        "instances": [instance(cloud, each) for each in cloud.machines.current.values()],
        "interfaces": [interface(cloud, each) for each in cloud.nics.current.values()],
    }  # fmt: skip


def instance(cloud: Cloud, record: Machine) -> Document:
    first = cloud.nics_at(record.id)[0].primary
    return {
        "id": record.id,
        "type": record.size,
        "state": "running",
        "vpc_id": first.subnet_id.rpartition("/subnets/")[0],
        "subnet_id": first.subnet_id,
        "zone": f"{cloud.region}-{record.zone}" if record.zone else cloud.region,
        "primary_address": first.address,
        "tags": dict(record.tags),
    }


def interface(cloud: Cloud, record: Nic) -> Document:
    """Addresses that the network delivers: those allocated, whatever state their configuration is in."""
    first = record.primary
    network_record = cloud.network_of(first.subnet_id)
    others = [each.address for each in record.configurations if not each.primary and each.address]
    public = cloud.public_addresses.current.get(first.public_address_id)
    return {
        "id": record.id,
        "mac": record.mac,
        "instance_id": record.machine_id,
        "attachment_id": record.id if record.machine_id else "",
        "device_index": record.device,
        "network_card": 0,
        "delete_on_termination": bool(record.machine_id),
        "subnet_id": first.subnet_id,
        "subnet_cidr": cloud.subnets[first.subnet_id].cidr,
        "vpc_id": network_record.id,
        "vpc_cidr": network_record.cidr,
        "primary": first.address,
        "primary_address": first.address,
        "addresses": [first.address, *others],
        "prefixes": [],
        "ipv6_addresses": [],
        "ipv6_prefixes": [],
        "public_address": public.address if public else "",
        "status": "in-use" if record.machine_id else "available",
        "description": "",
        "tags": dict(record.tags),
    }
