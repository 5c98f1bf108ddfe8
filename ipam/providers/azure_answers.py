"""What ARM answers, as the domain's facts. Documents are JSON; a malformed one raises what reading it raises."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ipam.model import CloudInterface, Instance, Limits, PublicAddress, SecurityGroup, Subnet
from ipam.providers import azure_ids as ids

Document = Mapping[str, Any]
# https://learn.microsoft.com/azure/azure-resource-manager/management/azure-subscription-service-limits
CONFIGURATIONS: Final = 256  # of an interface, and of a virtual machine
RESERVED: Final = 5  # addresses of a subnet that are Azure's: the first four and the last
OUR_NAME: Final = "plimsoll-"
SUCCEEDED: Final = "Succeeded"
UNDER_WAY: Final = frozenset({"Creating", "Updating", "Deleting", "Migrating"})


def properties(document: Document) -> dict[str, Any]:
    return dict(document.get("properties") or {})


def state(document: Document) -> str:
    return str(properties(document).get("provisioningState") or SUCCEEDED)


def is_under_way(document: Document) -> bool:
    return state(document) in UNDER_WAY


def is_in(document: Document, region: str) -> bool:
    """Whether the resource is in that location, which some services write "West Europe"."""
    return str(document.get("location") or "").replace(" ", "").lower() == region


def is_single(machine: Document) -> bool:
    """Whether its interfaces are resources of their own: of no uniform scale set."""
    return "/virtualmachinescalesets/" not in str(machine["id"]).lower()


def low_id(reference: Document | None) -> str:
    """The id of a reference such as {"id": ...}, in lower case; empty: none."""
    return str((reference or {}).get("id") or "").lower()


def tags(document: Document) -> dict[str, str]:
    return {str(key): str(value) for key, value in (document.get("tags") or {}).items()}


def configurations(nic: Document) -> list[dict[str, Any]]:
    return [dict(each) for each in properties(nic).get("ipConfigurations") or ()]


def is_ipv4(configuration: Document) -> bool:
    return bool(properties(configuration).get("privateIPAddressVersion", "IPv4") == "IPv4")


def is_ours(configuration: Document) -> bool:
    return str(configuration["name"]).startswith(OUR_NAME)


def ours(nic: Document) -> dict[str, str]:
    """Addresses of our configurations by their names, whatever state these are in."""
    found = {}
    for each in configurations(nic):
        address = properties(each).get("privateIPAddress")
        if address and is_ours(each) and is_ipv4(each):
            found[str(each["name"])] = str(ipaddress.IPv4Address(address))
    return found


def held(nic: Document) -> dict[str, str]:
    """Addresses for pods by the names of their configurations: ours, those that have succeeded only."""
    states = {str(each["name"]): properties(each).get("provisioningState", SUCCEEDED) for each in configurations(nic)}
    return {name: address for name, address in ours(nic).items() if states[name] == SUCCEEDED}


def primary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of an interface's configurations. A model may leave it unsaid while there is but one."""
    others = (each for each in rows if is_ipv4(each) and not is_ours(each))
    return next((each for each in rows if properties(each).get("primary")), None) or next(others, rows[0])


def interface(nic: Document, exclude: Mapping[str, str]) -> CloudInterface:
    told = properties(nic)
    first = properties(primary(configurations(nic)))
    subnet_id = low_id(first.get("subnet"))
    machine_id = low_id(told.get("virtualMachine"))
    nic_id = str(nic["id"]).lower()
    own_tags = tags(nic)
    excluded = bool(exclude) and all(own_tags.get(key) == value for key, value in exclude.items())
    attached = "in-use" if machine_id else "available"
    return CloudInterface(
        id=nic_id,
        mac=str(told.get("macAddress") or "").replace("-", ":").lower(),
        subnet_id=subnet_id,
        vpc_id=ids.network_of(subnet_id),
        zone=str(nic.get("location") or ""),
        primary_address=str(ipaddress.IPv4Address(first["privateIPAddress"])),
        addresses=() if excluded else tuple(held(nic).values()),
        instance_id=machine_id,
        attachment_id=nic_id if machine_id else "",
        security_group_ids=tuple(filter(None, [low_id(told.get("networkSecurityGroup"))])),
        tags=own_tags,
        status="excluded" if excluded else attached,
        public_address_id=low_id(first.get("publicIPAddress")),
    )


def instance(machine: Document, interfaces: Iterable[CloudInterface]) -> Instance:
    """A virtual machine with its interfaces: the primary one first, then in the order that the machine names them."""
    told = properties(machine)
    machine_id = str(machine["id"]).lower()
    profile = (told.get("networkProfile") or {}).get("networkInterfaces") or ()
    order = {
        low_id(each): (not (len(profile) == 1 or properties(each).get("primary")), place)
        for place, each in enumerate(profile)
    }
    found = sorted(interfaces, key=lambda each: (*order.get(each.id, (True, len(order))), each.id))
    zone = place(machine)
    numbered = tuple(
        replace(each, device_index=index, zone=zone, instance_id=machine_id) for index, each in enumerate(found)
    )
    size = (told.get("hardwareProfile") or {}).get("vmSize") or (machine.get("sku") or {}).get("name")
    return Instance(
        id=machine_id,
        type=str(size),
        zone=zone,
        vpc_id=numbered[0].vpc_id if numbered else "",
        subnet_id=numbered[0].subnet_id if numbered else "",
        tags=tags(machine),
        security_group_ids=numbered[0].security_group_ids if numbered else (),
        interfaces=numbered,
    )


def place(machine: Document) -> str:
    """Location and zone: "westeurope-1"; the location alone for what is in no zone."""
    zones = machine.get("zones") or ()
    location = str(machine.get("location") or "").lower()
    return f"{location}-{zones[0]}" if zones else location


def subnets(network: Document, usages: Sequence[Document]) -> Iterator[Subnet]:
    """Those with a range of IPv4.

    :param usages: of the network, which say how many addresses of each subnet are taken.
    """
    told = properties(network)
    used = {low_id(each): int(each["currentValue"]) for each in usages}
    whole = tuple(each for each in (told.get("addressSpace") or {}).get("addressPrefixes") or () if ":" not in each)
    for each in told.get("subnets") or ():
        own = properties(each)
        blocks = own.get("addressPrefixes") or [own["addressPrefix"]]
        cidrs = [ipaddress.IPv4Network(block) for block in blocks if ":" not in block]
        if not cidrs:
            continue  # of IPv6 alone
        subnet_id = str(each["id"]).lower()
        size = sum(cidr.num_addresses - RESERVED for cidr in cidrs)
        yield Subnet(
            id=subnet_id,
            cidr=str(cidrs[0]),
            zone=str(network["location"]).lower(),
            vpc_id=str(network["id"]).lower(),
            free=max(0, size - used.get(subnet_id, 0)),
            vpc_cidrs=whole,
            gateway=str(cidrs[0][1]),
        )


def security_group(group: Document) -> SecurityGroup:
    """Azure's belong to no network."""
    return SecurityGroup(id=str(group["id"]).lower(), vpc_id="", tags=tags(group))


def interfaces_by_size(skus: Iterable[Document]) -> dict[str, int]:
    """How many interfaces a virtual machine takes, by its size in lower case."""
    found = {}
    for sku in skus:
        if sku.get("resourceType") != "virtualMachines":
            continue
        for each in sku.get("capabilities") or ():
            if each.get("name") == "MaxNetworkInterfaces":
                found[str(sku["name"]).lower()] = int(each["value"])
    return found


def limits(instance_type: str, interfaces: int) -> Limits:
    return Limits(
        instance_type=instance_type,
        interfaces=interfaces,
        ipv4_per_interface=CONFIGURATIONS,
        addresses_per_instance=CONFIGURATIONS,
    )


def public_address(document: Document) -> PublicAddress:
    told = properties(document)
    holder = low_id(told.get("ipConfiguration")) or low_id(told.get("natGateway"))
    return PublicAddress(
        id=str(document["id"]).lower(),
        address=str(told.get("ipAddress") or ""),
        interface_id=holder.partition("/ipconfigurations/")[0],
        tags=tags(document),
    )
