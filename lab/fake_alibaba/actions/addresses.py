"""Secondary addresses and /28 prefixes of interfaces, ten a call at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.fake_alibaba.actions.interfaces import MOST_ADDRESSES_A_CALL, state_error, take
from lab.fake_alibaba.actions.registry import Answer, Parameters, action
from lab.fake_alibaba.capacity import require_slots
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError, missing
from lab.fake_alibaba.parameters import number, text, texts
from lab.fake_alibaba.records import AVAILABLE, IN_USE, Interface

_KINDS = ("PrivateIpAddress", "SecondaryPrivateIpAddressCount", "Ipv4Prefix", "Ipv4PrefixCount")


@action("AssignPrivateIpAddresses")
def assign_private_ip_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = _changeable(cloud, parameters)
    if (made := cloud.tokens.made("AssignPrivateIpAddresses", parameters)) is not None:
        return _assigned(interface, [each for each in made if "/" not in each], [each for each in made if "/" in each])
    asked = [name for name in _KINDS if parameters.get(name)]
    if not asked:
        raise missing("PrivateIpAddress")
    if len(asked) > 1:
        raise ApiError("InvalidParameterCombination", f"{' and '.join(asked)} cannot be used together.")
    named = texts(parameters, "PrivateIpAddress", MOST_ADDRESSES_A_CALL)
    blocks = texts(parameters, "Ipv4Prefix", MOST_ADDRESSES_A_CALL)
    count = number(parameters, "SecondaryPrivateIpAddressCount", 0, 1, MOST_ADDRESSES_A_CALL)
    prefixes = number(parameters, "Ipv4PrefixCount", 0, 1, MOST_ADDRESSES_A_CALL)
    require_slots(cloud, interface, interface.slots + len(named) + len(blocks) + count + prefixes)
    space = cloud.spaces[interface.vswitch_id]
    for each in named:
        space.require(each)
    for each in blocks:
        space.require_prefix(each)
    more, whole = take(cloud, interface.vswitch_id, count, prefixes)
    addresses = [*(space.claim(each) for each in named), *more]
    delegated = [*(space.claim_prefix(each) for each in blocks), *whole]
    cloud.put_interface(
        replace(
            interface,
            addresses=(*interface.addresses, *addresses),
            prefixes=(*interface.prefixes, *delegated),
        )
    )
    cloud.tokens.remember("AssignPrivateIpAddresses", parameters, (*addresses, *delegated))
    return _assigned(interface, addresses, delegated)


def _assigned(interface: Interface, addresses: Sequence[str], prefixes: Sequence[str]) -> Answer:
    return {
        "AssignedPrivateIpAddressesSet": {
            "NetworkInterfaceId": interface.id,
            "PrivateIpSet": {"PrivateIpAddress": list(addresses)},
            "Ipv4PrefixSet": {"Ipv4Prefixes": list(prefixes)},
        }
    }


@action("UnassignPrivateIpAddresses")
def unassign_private_ip_addresses(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = _changeable(cloud, parameters)
    addresses = set(texts(parameters, "PrivateIpAddress", MOST_ADDRESSES_A_CALL))
    prefixes = set(texts(parameters, "Ipv4Prefix", MOST_ADDRESSES_A_CALL))
    if not addresses and not prefixes:
        raise missing("PrivateIpAddress")
    if interface.addresses[0] in addresses:
        raise ApiError("InvalidOperation.PrimaryIp", "The primary address of an interface cannot be unassigned.")
    if not addresses <= set(interface.addresses) or not prefixes <= set(interface.prefixes):
        raise ApiError("InvalidIp.IpUnassigned", f"Some of the addresses are not assigned to {interface.id}.")
    space = cloud.spaces[interface.vswitch_id]
    for each in addresses:
        space.release(each)
    for each in prefixes:
        space.release_prefix(each)
    cloud.put_interface(
        replace(
            interface,
            addresses=tuple(each for each in interface.addresses if each not in addresses),
            prefixes=tuple(each for each in interface.prefixes if each not in prefixes),
        )
    )
    return {}


def _changeable(cloud: Cloud, parameters: Parameters) -> Interface:
    interface = cloud.find(cloud.interfaces, text(parameters, "NetworkInterfaceId"))
    if interface.status not in (AVAILABLE, IN_USE):
        raise state_error(interface)
    return interface
