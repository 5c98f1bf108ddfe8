"""Network interfaces: create, describe, modify, delete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from lab.fake_alibaba.actions import describe
from lab.fake_alibaba.actions.registry import Answer, Parameters, action
from lab.fake_alibaba.actions.tags import has
from lab.fake_alibaba.capacity import require_slots
from lab.fake_alibaba.cloud import Cloud, not_found
from lab.fake_alibaba.errors import ApiError, missing
from lab.fake_alibaba.pages import page
from lab.fake_alibaba.parameters import flag, number, tags, text, texts
from lab.fake_alibaba.records import AVAILABLE, CREATING, IN_USE, PRIMARY, SECONDARY, Interface, VSwitch

MOST_ADDRESSES_A_CALL = 10
_MOST_GROUPS = 10


def groups(cloud: Cloud, vpc_id: str, asked: Iterable[str]) -> tuple[str, ...]:
    """Security groups of the VPC. Raises ApiError."""
    found = tuple(cloud.find(cloud.groups, group_id) for group_id in dict.fromkeys(asked))
    if not found:
        raise missing("SecurityGroupId")
    if any(each.vpc_id != vpc_id for each in found):
        raise ApiError("InvalidSecurityGroupId.VpcMismatch", "The security group and the VSwitch are of other VPCs.")
    if len(found) > _MOST_GROUPS:
        raise ApiError("InvalidParameter.SecurityGroupIds", f"An interface has {_MOST_GROUPS} groups at most.")
    return tuple(each.id for each in found)


def take(cloud: Cloud, vswitch_id: str, count: int, prefixes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Takes so many addresses and prefixes of the vSwitch, or none. Prefixes first, which are scarcer."""
    space = cloud.spaces[vswitch_id]
    blocks = space.prefixes(prefixes)
    try:
        return space.addresses(count), blocks
    except ApiError:
        for each in blocks:
            space.release_prefix(each)
        raise


def build(
    cloud: Cloud, vswitch: VSwitch, group_ids: Iterable[str], parameters: Parameters, *, kind: str = SECONDARY
) -> Interface:
    """A new interface with its addresses taken; the caller stores it. Raises ApiError, and nothing is taken then."""
    checked = groups(cloud, vswitch.vpc_id, group_ids)
    count = number(parameters, "SecondaryPrivateIpAddressCount", 0, 1, MOST_ADDRESSES_A_CALL)
    prefixes = number(parameters, "Ipv4PrefixCount", 0, 1, MOST_ADDRESSES_A_CALL)
    if count and prefixes:
        raise ApiError("InvalidParameterCombination", "Addresses and prefixes cannot be asked for by one call.")
    delete = kind == PRIMARY or flag(parameters, "DeleteOnRelease", default=True)
    named = tags(parameters)
    require_slots(cloud, None, 1 + count + prefixes)
    space, wanted = cloud.spaces[vswitch.id], parameters.get("PrimaryIpAddress") or ""
    if wanted:
        space.require(wanted)
        if space.free < 1 + count:
            space.addresses(1 + count)  # refuses
        first = space.claim(wanted)
        try:
            addresses, blocks = take(cloud, vswitch.id, count, prefixes)
        except ApiError:
            space.release(first)
            raise
        addresses = (first, *addresses)
    else:
        addresses, blocks = take(cloud, vswitch.id, 1 + count, prefixes)
    return Interface(
        number=cloud.new_number(), id=cloud.new_id("eni"), mac=cloud.new_mac(), vpc_id=vswitch.vpc_id,
        vswitch_id=vswitch.id, zone=vswitch.zone, addresses=addresses, created_at=cloud.clock(), prefixes=blocks,
        group_ids=checked, name=parameters.get("NetworkInterfaceName", ""),
        description=parameters.get("Description", ""), kind=kind, delete_on_release=delete, tags=named,
    )  # fmt: skip


@action("CreateNetworkInterface")
def create_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    if made := cloud.tokens.made("CreateNetworkInterface", parameters):
        known = cloud.interfaces.current.get(made[0])
        if known is None:
            raise not_found(made[0])
        return describe.interface(cloud, known)
    vswitch = cloud.find(cloud.vswitches, text(parameters, "VSwitchId"))
    one, many = parameters.get("SecurityGroupId"), texts(parameters, "SecurityGroupIds")
    if one and many:
        raise ApiError("InvalidParameterCombination", "SecurityGroupId and SecurityGroupIds cannot be used together.")
    interface = replace(build(cloud, vswitch, [one] if one else many, parameters), status=CREATING)
    cloud.put_interface(interface)
    cloud.later(cloud.faults.create_s, partial(cloud.arrive, interface.id, CREATING, AVAILABLE))
    cloud.tokens.remember("CreateNetworkInterface", parameters, (interface.id,))
    return describe.interface(cloud, cloud.interfaces.current[interface.id])


@action("DescribeNetworkInterfaces")
def describe_network_interfaces(cloud: Cloud, parameters: Parameters) -> Answer:
    ids = texts(parameters, "NetworkInterfaceId")
    addresses = set(texts(parameters, "PrivateIpAddress"))
    asked = {
        "instance_id": parameters.get("InstanceId"), "vpc_id": parameters.get("VpcId"),
        "vswitch_id": parameters.get("VSwitchId"), "status": parameters.get("Status"),
        "kind": parameters.get("Type"), "name": parameters.get("NetworkInterfaceName"),
    }  # fmt: skip
    group_id, instance_id = parameters.get("SecurityGroupId"), parameters.get("InstanceId")
    records: Iterable[Interface]
    if ids:
        records = sorted((each for id in ids if (each := cloud.interfaces.seen(id))), key=lambda each: each.number)
    else:
        records = cloud.interfaces_seen_of(instance_id) if instance_id else cloud.interfaces.readable()
    kept = (
        each
        for each in records
        if all(not value or getattr(each, name) == value for name, value in asked.items())
        and (not addresses or addresses & set(each.addresses))
        and (not group_id or group_id in each.group_ids)
        and has(each, parameters)
    )
    found, told = page(kept, "DescribeNetworkInterfaces", parameters, largest=500)
    rows = [describe.interface(cloud, each) for each in found]
    return {"NetworkInterfaceSets": {"NetworkInterfaceSet": rows}, **told}


@action("ModifyNetworkInterfaceAttribute")
def modify_network_interface_attribute(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, text(parameters, "NetworkInterfaceId"))
    if interface.status not in (AVAILABLE, IN_USE):
        raise state_error(interface)
    changed = interface
    if "SecurityGroupId" in parameters:
        changed = replace(changed, group_ids=groups(cloud, interface.vpc_id, texts(parameters, "SecurityGroupId")))
    if "DeleteOnRelease" in parameters:
        if interface.kind == PRIMARY:
            raise ApiError("InvalidOperation.InvalidEniType", "A primary interface goes with its instance always.")
        changed = replace(changed, delete_on_release=flag(parameters, "DeleteOnRelease"))
    for name, ours in (("Description", "description"), ("NetworkInterfaceName", "name")):
        if name in parameters:
            changed = replace(changed, **{ours: str(parameters[name])})  # type: ignore[arg-type]
    cloud.put_interface(changed)
    return {}


@action("DeleteNetworkInterface")
def delete_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, text(parameters, "NetworkInterfaceId"))
    if interface.status != AVAILABLE:
        raise state_error(interface)
    cloud.drop_interface(interface)
    return {}


def state_error(interface: Interface) -> ApiError:
    return ApiError(
        "InvalidOperation.InvalidEniState", f"The status {interface.status} of {interface.id} does not allow this."
    )
