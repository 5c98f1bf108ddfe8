"""Elastic IPs: allocate, describe, associate, unassociate, release.

One leads to an instance (its primary interface) or to a secondary interface.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Final

from lab.fake_alibaba.actions import describe
from lab.fake_alibaba.actions.registry import VPC, Answer, Parameters, action
from lab.fake_alibaba.actions.tags import has
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError, invalid
from lab.fake_alibaba.pages import numbered
from lab.fake_alibaba.parameters import tags, text
from lab.fake_alibaba.records import PRIMARY, Eip, Interface

# Documentation's ranges (RFC 5737): nothing is ever routed there.
_PUBLIC: Final = tuple(
    str(address)
    for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
    for address in ipaddress.ip_network(block).hosts()
)


@action("AllocateEipAddress", VPC)
def allocate_eip_address(cloud: Cloud, parameters: Parameters) -> Answer:
    taken = {each.address for each in cloud.eips.current.values()}
    address = next((each for each in _PUBLIC if each not in taken), None)
    if address is None:
        raise ApiError("QuotaExceeded.Eip", "Elastic IP address quota exceeded.")
    record = Eip(cloud.new_number(), cloud.new_id("eip"), address, tags=tags(parameters))
    cloud.eips.put(record)
    cloud.changed()
    return {"AllocationId": record.id, "EipAddress": address}


@action("DescribeEipAddresses", VPC)
def describe_eip_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    wanted = parameters.get("AllocationId")
    records = [each for each in cloud.eips.readable() if (not wanted or each.id == wanted) and has(each, parameters)]
    found, told = numbered(records, parameters, largest=100)
    return {"EipAddresses": {"EipAddress": [describe.eip(cloud, each) for each in found]}, **told}


@action("AssociateEipAddress", VPC)
def associate_eip_address(cloud: Cloud, parameters: Parameters) -> Answer:
    eip = cloud.find(cloud.eips, text(parameters, "AllocationId"))
    kind, target_id = parameters.get("InstanceType") or "EcsInstance", text(parameters, "InstanceId")
    interface = _target(cloud, kind, target_id)
    if eip.target_id:
        raise ApiError("IncorrectEipStatus", "Current elastic IP status does not support this operation.")
    if interface.eip_id:
        raise ApiError("InvalidBindingStatus", f"The specified instance {target_id} is already bound with EIP.")
    cloud.eips.put(replace(eip, target_kind=kind, target_id=target_id, interface_id=interface.id))
    cloud.put_interface(replace(interface, eip_id=eip.id))
    return {}


def _target(cloud: Cloud, kind: str, target_id: str) -> Interface:
    if kind == "NetworkInterface":
        interface = cloud.find(cloud.interfaces, target_id)
        if interface.kind == PRIMARY:
            raise ApiError("InvalidOperation.InvalidEniType", "An EIP of a primary interface is bound to its instance.")
        return interface
    if kind != "EcsInstance":
        raise invalid("InstanceType", kind)
    return cloud.interfaces_of(cloud.find(cloud.instances, target_id).id)[0]


@action("UnassociateEipAddress", VPC)
def unassociate_eip_address(cloud: Cloud, parameters: Parameters) -> Answer:
    eip = cloud.find(cloud.eips, text(parameters, "AllocationId"))
    if not eip.target_id:
        raise ApiError("IncorrectEipStatus", "Current elastic IP status does not support this operation.")
    interface = cloud.interfaces.current[eip.interface_id]
    cloud.eips.put(replace(eip, target_kind="", target_id="", interface_id=""))
    cloud.put_interface(replace(interface, eip_id=""))
    return {}


@action("ReleaseEipAddress", VPC)
def release_eip_address(cloud: Cloud, parameters: Parameters) -> Answer:
    eip = cloud.find(cloud.eips, text(parameters, "AllocationId"))
    if eip.target_id:
        raise ApiError("IncorrectEipStatus", "Current elastic IP status does not support this operation.")
    cloud.eips.remove(eip.id)
    cloud.changed()
    return {}
