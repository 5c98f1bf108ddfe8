"""Elastic IPs: allocate, describe, associate, disassociate, release.

An association leads to the primary address of an interface. One that is there is taken away only if the caller says
so (AllowReassociation), and the same association again is answered as the first time.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any, Final

from lab.fake_ec2.actions import describe
from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.actions.tags import specified
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError, missing
from lab.fake_ec2.filters import keep
from lab.fake_ec2.records import Association, ElasticIp, Interface

# Documentation's ranges (RFC 5737): nothing is ever routed there.
_PUBLIC: Final = tuple(
    str(address)
    for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
    for address in ipaddress.ip_network(block).hosts()
)
_FACTS: dict[str, Any] = {
    "allocation-id": lambda each: each.id,
    "association-id": lambda each: each.association_id or (),
    "domain": lambda _: "vpc",
    "network-interface-id": lambda each: each.interface_id or (),
    "public-ip": lambda each: each.address,
    "tags": lambda each: each.tags,
}


@action("AllocateAddress")
def allocate_address(cloud: Cloud, parameters: Parameters) -> Answer:
    tags = specified(parameters, "elastic-ip")["elastic-ip"]
    taken = {each.address for each in cloud.elastic_ips.current.values()}
    address = next((each for each in _PUBLIC if each not in taken), None)
    if address is None:
        raise ApiError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    record = ElasticIp(cloud.new_number(), cloud.new_id("eipalloc"), address, tags=tags)
    cloud.elastic_ips.put(record)
    cloud.changed()
    return {"AllocationId": record.id, "PublicIp": address, "Domain": "vpc", "NetworkBorderGroup": cloud.region}


@action("DescribeAddresses")
def describe_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    """EC2 has no pages here."""
    records = cloud.read(cloud.elastic_ips, parameters.get("AllocationIds"))
    if addresses := parameters.get("PublicIps"):
        records = [each for each in records if each.address in addresses]
    kept = keep(records, parameters.get("Filters"), _FACTS)
    return {"Addresses": [describe.elastic_ip(cloud, each) for each in kept]}


@action("AssociateAddress")
def associate_address(cloud: Cloud, parameters: Parameters) -> Answer:
    if not parameters.get("AllocationId"):
        raise missing("AllocationId")
    public = cloud.find(cloud.elastic_ips, parameters["AllocationId"])
    interface = _target(cloud, parameters)
    if public.interface_id == interface.id:
        return {"AssociationId": public.association_id}
    if public.interface_id:
        if not parameters.get("AllowReassociation"):
            raise ApiError(
                "Resource.AlreadyAssociated", f"resource {public.id} is already associated with {public.interface_id}"
            )
        _part(cloud, public)
    if interface.association is not None:  # who is newer takes the place, as in EC2
        _part(cloud, cloud.elastic_ips.current[interface.association.allocation_id])
        interface = cloud.interfaces.current[interface.id]
    association_id = cloud.new_id("eipassoc")
    cloud.elastic_ips.put(replace(public, association_id=association_id, interface_id=interface.id))
    made = Association(association_id, public.id, public.address)
    cloud.put_interface(replace(interface, association=made))
    return {"AssociationId": association_id}


def _target(cloud: Cloud, parameters: Parameters) -> Interface:
    if interface_id := parameters.get("NetworkInterfaceId"):
        return cloud.find(cloud.interfaces, interface_id)
    if not parameters.get("InstanceId"):
        raise missing("InstanceId")
    instance = cloud.find(cloud.instances, parameters["InstanceId"])
    interfaces = cloud.interfaces_of(instance.id)
    if len(interfaces) != 1:
        raise ApiError(
            "InvalidInstanceID", f"There are multiple interfaces attached to instance '{instance.id}'. Name one."
        )
    return interfaces[0]


@action("DisassociateAddress")
def disassociate_address(cloud: Cloud, parameters: Parameters) -> Answer:
    association_id = parameters.get("AssociationId", "")
    for public in cloud.elastic_ips.current.values():
        if association_id and public.association_id == association_id:
            _part(cloud, public)
            return {}
    raise ApiError("InvalidAssociationID.NotFound", f"The association ID '{association_id}' does not exist")


@action("ReleaseAddress")
def release_address(cloud: Cloud, parameters: Parameters) -> Answer:
    public = cloud.find(cloud.elastic_ips, parameters.get("AllocationId", ""))
    if public.interface_id:
        raise ApiError("InvalidIPAddress.InUse", f"Address {public.address} is in use.")
    cloud.elastic_ips.remove(public.id)
    cloud.changed()
    return {}


def _part(cloud: Cloud, public: ElasticIp) -> None:
    interface = cloud.interfaces.current[public.interface_id]
    cloud.elastic_ips.put(replace(public, association_id="", interface_id=""))
    cloud.put_interface(replace(interface, association=None))
