"""Limits of the type of an instance, checked before anything is taken."""

from __future__ import annotations

from typing import Final

from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError
from lab.fake_alibaba.records import Instance, Interface

# An interface attached to nothing takes ten beside its primary address.
_DETACHED: Final = 11


def require_slots(cloud: Cloud, interface: Interface | None, slots: int) -> None:
    """:param slots: addresses and prefixes that the interface would hold, the primary address included."""
    most = _DETACHED
    if interface is not None and interface.instance_id:
        most = cloud.instances.current[interface.instance_id].type.ipv4_per_interface
    _require(slots, most)


def require_place(cloud: Cloud, instance: Instance, interface: Interface) -> int:
    """The place where the interface may be attached: the lowest that is free."""
    taken = cloud.interfaces_of(instance.id)
    if len(taken) >= instance.type.interfaces:
        raise ApiError(
            "EniPerInstanceLimitExceeded", f"The maximum number of ENIs of {instance.type.name} has been reached."
        )
    _require(interface.slots, instance.type.ipv4_per_interface)
    places = {each.place for each in taken}
    return next(place for place in range(len(taken) + 1) if place not in places)


def _require(slots: int, most: int) -> None:
    if slots > most:
        raise ApiError(
            "InvalidOperation.Ipv4CountExceeded", f"The interface can hold {most} IPv4 addresses and prefixes."
        )
