"""Secondary addresses, /28 prefixes, IPv6 addresses and /80 prefixes of interfaces."""

from __future__ import annotations

from dataclasses import replace

from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.capacity import facts_of, require_addresses
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.holding import Holding, Wanted, wanted
from lab.fake_ec2.records import Interface


@action("AssignPrivateIpAddresses")
def assign_private_ip_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    asked = wanted(parameters)
    if not asked.slots:
        raise ApiError("MissingParameter", "Either addresses, prefixes or a count of one of them must be specified")
    if (asked.addresses or asked.count) and (asked.prefixes or asked.prefix_count):
        raise ApiError("InvalidParameterCombination", "Addresses and prefixes cannot be assigned by one call")
    moved = _reassigned(cloud, interface, asked) if parameters.get("AllowReassignment") else {}
    fresh = replace(asked, addresses=tuple(each for each in asked.addresses if each not in moved))
    slots = len(interface.addresses) + len(interface.prefixes)
    require_addresses(
        facts_of(cloud, interface),
        slots + asked.slots,
        interface.ipv6_slots,
        prefixes=bool(asked.prefixes or asked.prefix_count),
    )
    with Holding(cloud, interface.subnet_id) as held:
        held.take(fresh, primary=False)
    for address, owner_id in moved.items():
        owner = cloud.interfaces.current[owner_id]
        cloud.put_interface(replace(owner, addresses=tuple(each for each in owner.addresses if each != address)))
    got = [*moved, *held.addresses]
    cloud.put_interface(
        replace(interface, addresses=(*interface.addresses, *got), prefixes=(*interface.prefixes, *held.prefixes))
    )
    return {
        "NetworkInterfaceId": interface.id,
        "AssignedPrivateIpAddresses": [{"PrivateIpAddress": each} for each in got],
        "AssignedIpv4Prefixes": [{"Ipv4Prefix": each} for each in held.prefixes],
    }


def _reassigned(cloud: Cloud, interface: Interface, asked: Wanted) -> dict[str, str]:
    """Addresses asked for that are secondary ones of other interfaces, with their owners."""
    named = set(asked.addresses)
    return {
        address: each.id
        for each in cloud.interfaces.current.values()
        if each.subnet_id == interface.subnet_id and each.id != interface.id
        for address in each.addresses[1:]
        if address in named
    }


@action("UnassignPrivateIpAddresses")
def unassign_private_ip_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    addresses = dict.fromkeys(parameters.get("PrivateIpAddresses", ()))
    prefixes = dict.fromkeys(parameters.get("Ipv4Prefixes", ()))
    if not addresses and not prefixes:
        raise ApiError("MissingParameter", "Either addresses or prefixes must be specified")
    if interface.addresses[0] in addresses:
        raise ApiError("InvalidParameterValue", f"The primary address {interface.addresses[0]} cannot be unassigned.")
    if not addresses.keys() <= set(interface.addresses) or not prefixes.keys() <= set(interface.prefixes):
        raise ApiError(
            "InvalidParameterValue", f"Some of the specified addresses are not assigned to interface {interface.id}"
        )
    space = cloud.spaces[interface.subnet_id]
    for address in addresses:
        space.release(address)
    for prefix in prefixes:
        space.release_prefix(prefix)
    cloud.put_interface(
        replace(
            interface,
            addresses=tuple(each for each in interface.addresses if each not in addresses),
            prefixes=tuple(each for each in interface.prefixes if each not in prefixes),
        )
    )
    return {}


@action("AssignIpv6Addresses")
def assign_ipv6_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    asked = wanted(parameters)
    if not asked.ipv6_slots:
        raise ApiError("MissingParameter", "Either IPv6 addresses, prefixes or a count of them must be specified")
    slots = len(interface.addresses) + len(interface.prefixes)
    require_addresses(
        facts_of(cloud, interface), slots, interface.ipv6_slots + asked.ipv6_slots, prefixes=asked.has_prefixes
    )
    with Holding(cloud, interface.subnet_id) as held:
        held.take(asked, primary=False)
    cloud.put_interface(
        replace(
            interface,
            ipv6_addresses=(*interface.ipv6_addresses, *held.ipv6_addresses),
            ipv6_prefixes=(*interface.ipv6_prefixes, *held.ipv6_prefixes),
        )
    )
    return {
        "NetworkInterfaceId": interface.id,
        "AssignedIpv6Addresses": held.ipv6_addresses,
        "AssignedIpv6Prefixes": held.ipv6_prefixes,
    }


@action("UnassignIpv6Addresses")
def unassign_ipv6_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    addresses = dict.fromkeys(parameters.get("Ipv6Addresses", ()))
    prefixes = dict.fromkeys(parameters.get("Ipv6Prefixes", ()))
    if not addresses and not prefixes:
        raise ApiError("MissingParameter", "Either ipv6Addresses or ipv6Prefixes must be specified")
    if not addresses.keys() <= set(interface.ipv6_addresses) or not prefixes.keys() <= set(interface.ipv6_prefixes):
        raise ApiError(
            "InvalidParameterValue", f"Some of the specified addresses are not assigned to interface {interface.id}"
        )
    for address in addresses:
        cloud.spaces6[interface.subnet_id].release(address)
    for prefix in prefixes:
        cloud.spaces6[interface.subnet_id].release_prefix(prefix)
    cloud.put_interface(
        replace(
            interface,
            ipv6_addresses=tuple(each for each in interface.ipv6_addresses if each not in addresses),
            ipv6_prefixes=tuple(each for each in interface.ipv6_prefixes if each not in prefixes),
        )
    )
    return {
        "NetworkInterfaceId": interface.id,
        "UnassignedIpv6Addresses": list(addresses),
        "UnassignedIpv6Prefixes": list(prefixes),
    }
