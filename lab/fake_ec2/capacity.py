"""Limits of the type of an instance, checked before anything is taken."""

from __future__ import annotations

from typing import Final

from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.limits import InstanceType
from lab.fake_ec2.records import Instance, Interface

# An interface attached to nothing may hold what the largest type takes.
_DETACHED_IPV4: Final = 50
_DETACHED_IPV6: Final = 50


def require_addresses(facts: InstanceType | None, ipv4: int, ipv6: int, *, prefixes: bool) -> None:
    """:param ipv4: slots that would be filled on one interface, the primary address included."""
    if ipv4 > (facts.ipv4_per_interface if facts else _DETACHED_IPV4):
        raise ApiError("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
    if ipv6 > (facts.ipv6_per_interface if facts else _DETACHED_IPV6):
        raise ApiError("PrivateIpAddressLimitExceeded", "Number of IPv6 addresses will exceed limit.")
    if facts is not None and prefixes and not facts.prefixes:
        raise ApiError("UnsupportedOperation", f"Prefixes are not supported on instance type {facts.name}.")


def require_slot(cloud: Cloud, instance: Instance, device_index: int, network_card: int) -> None:
    """An interface may be attached there."""
    facts, taken = instance.type, cloud.interfaces_of(instance.id)
    if not 0 <= network_card < len(facts.network_cards):
        raise ApiError(
            "InvalidParameterValue", f"Network card index '{network_card}' is not valid for type '{facts.name}'."
        )
    places = {(each.attachment.network_card, each.attachment.device_index) for each in taken if each.attachment}
    if (network_card, device_index) in places or device_index < 0:
        raise ApiError(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{device_index}'.",
        )
    on_card = sum(card == network_card for card, _ in places)
    if len(taken) >= facts.interfaces or on_card >= facts.network_cards[network_card]:
        raise ApiError(
            "AttachmentLimitExceeded", f"Interface count {len(taken) + 1} exceeds the limit for {facts.name}"
        )


def require_kind(cloud: Cloud, instance: Instance, interface: Interface) -> None:
    """The instance takes interfaces of that kind. Branches belong to a trunk and are attached to nothing else."""
    kind = interface.interface_type
    if kind == "branch":
        raise ApiError("OperationNotPermitted", f"{interface.id} is a branch: it is associated with a trunk interface.")
    if kind != "interface" and not instance.type.prefixes:
        raise ApiError(
            "UnsupportedOperation",
            f"Interfaces of type {kind} are not supported on instance type {instance.type.name}.",
        )
    if kind == "trunk" and any(each.interface_type == "trunk" for each in cloud.interfaces_of(instance.id)):
        raise ApiError("AttachmentLimitExceeded", f"Instance '{instance.id}' already has a trunk interface attached.")


def facts_of(cloud: Cloud, interface: Interface) -> InstanceType | None:
    """The type of the instance that the interface is attached to."""
    if interface.attachment is None:
        return None
    return cloud.instances.current[interface.attachment.instance_id].type
