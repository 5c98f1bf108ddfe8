"""Network interfaces: create, describe, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.fake_ec2.actions import describe
from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.actions.tags import specified
from lab.fake_ec2.capacity import require_addresses
from lab.fake_ec2.cloud import Cloud, not_found
from lab.fake_ec2.errors import ApiError, invalid
from lab.fake_ec2.filters import exactly, keep
from lab.fake_ec2.holding import Holding, wanted
from lab.fake_ec2.pages import page
from lab.fake_ec2.records import Interface, Subnet


def _attachment(name: str) -> Any:
    return lambda each: str(getattr(each.attachment, name)) if each.attachment else ()


FACTS: dict[str, Any] = {
    "network-interface-id": lambda each: each.id,
    "vpc-id": lambda each: each.vpc_id,
    "subnet-id": lambda each: each.subnet_id,
    "availability-zone": lambda each: each.zone,
    "status": lambda each: each.status,
    "description": lambda each: each.description,
    "mac-address": lambda each: each.mac,
    "group-id": lambda each: each.group_ids,
    "interface-type": lambda each: each.interface_type,
    "private-ip-address": lambda each: each.addresses[0],
    "addresses.private-ip-address": lambda each: each.addresses,
    "ipv6-addresses.ipv6-address": lambda each: each.ipv6_addresses,
    "attachment.instance-id": _attachment("instance_id"),
    "attachment.attachment-id": _attachment("id"),
    "attachment.device-index": _attachment("device_index"),
    "attachment.status": _attachment("status"),
    "attachment.delete-on-termination": lambda each: (
        str(each.attachment.delete_on_termination).lower() if each.attachment else ()
    ),
    "requester-managed": lambda each: str(each.requester_managed).lower(),
    "association.allocation-id": lambda each: each.association.allocation_id if each.association else (),
    "association.public-ip": lambda each: each.association.public_address if each.association else (),
    "source-dest-check": lambda each: str(each.source_dest_check).lower(),
    "tags": lambda each: each.tags,
}


_KINDS = ("interface", "efa", "efa-only", "trunk", "branch")


def build(cloud: Cloud, subnet: Subnet, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> Interface:
    """A new interface with its addresses taken; the caller stores it. Raises ApiError, and nothing is taken then."""
    group_ids = groups(cloud, subnet.vpc_id, parameters.get("Groups"))
    asked = wanted(parameters)
    require_addresses(None, 1 + asked.slots, asked.ipv6_slots, prefixes=asked.has_prefixes)
    kind = parameters.get("InterfaceType", "interface")
    if kind not in _KINDS:
        raise invalid(kind, "interfaceType", f"It must be one of {', '.join(_KINDS)}.")
    with Holding(cloud, subnet.id) as held:
        held.take(asked, primary=True)
    return Interface(
        number=cloud.new_number(),
        id=cloud.new_id("eni"),
        mac=cloud.new_mac(),
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        zone=subnet.zone,
        addresses=tuple(held.addresses),
        prefixes=tuple(held.prefixes),
        ipv6_addresses=tuple(held.ipv6_addresses),
        group_ids=group_ids,
        description=parameters.get("Description", ""),
        interface_type=kind,
        tags=tags,
        ipv6_prefixes=tuple(held.ipv6_prefixes),
    )


def groups(cloud: Cloud, vpc_id: str, asked: Iterable[str] | None) -> tuple[str, ...]:
    """Security groups of the VPC; its default one if none is asked for. Raises ApiError."""
    if not asked:
        return tuple(
            each.id for each in cloud.groups.current.values() if each.vpc_id == vpc_id and each.name == "default"
        )
    found = tuple(cloud.find(cloud.groups, group_id) for group_id in dict.fromkeys(asked))
    if any(each.vpc_id != vpc_id for each in found):
        raise ApiError("InvalidParameter", "You have specified two resources that belong to different networks.")
    if len(found) > 16:
        raise ApiError("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups is 16.")
    return tuple(each.id for each in found)


@action("CreateNetworkInterface")
def create_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    token = parameters.get("ClientToken")
    if made := cloud.tokens.made("CreateNetworkInterface", parameters):
        known = cloud.interfaces.current.get(made[0])
        if known is None:
            raise not_found(made[0])
        return {"NetworkInterface": describe.interface(cloud, known), "ClientToken": token}
    subnet = cloud.find(cloud.subnets, parameters["SubnetId"])
    tags = specified(parameters, "network-interface")["network-interface"]
    interface = build(cloud, subnet, parameters, tags)
    cloud.put_interface(interface)
    cloud.tokens.remember("CreateNetworkInterface", parameters, (interface.id,))
    # The answer to the creation itself says pending; whoever asks later sees available.
    told = {**describe.interface(cloud, interface), "Status": "pending"}
    return {"NetworkInterface": told, "ClientToken": token}


@action("DeleteNetworkInterface")
def delete_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    if interface.attachment is not None:
        raise ApiError("InvalidParameterValue", f"Network interface '{interface.id}' is currently in use.")
    cloud.drop_interface(interface)
    return {}


@action("DescribeNetworkInterfaces")
def describe_network_interfaces(cloud: Cloud, parameters: Parameters) -> Answer:
    filters = parameters.get("Filters")
    instance_ids = exactly(filters, "attachment.instance-id")
    records: Iterable[Interface]
    if instance_ids is not None and not parameters.get("NetworkInterfaceIds"):
        of_instances = (each for one in dict.fromkeys(instance_ids) for each in cloud.interfaces_seen_of(one))
        records = sorted(of_instances, key=lambda each: each.number)
    else:
        records = cloud.read(cloud.interfaces, parameters.get("NetworkInterfaceIds"))
    kept = keep(records, filters, FACTS)
    found, token = page(kept, "DescribeNetworkInterfaces", parameters, ids="NetworkInterfaceIds")
    return {"NetworkInterfaces": [describe.interface_element(cloud, each) for each in found], "NextToken": token}
