"""Attach and detach. Both are asynchronous: they answer at once, and the interface gets there later."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lab.fake_alibaba.actions.interfaces import state_error
from lab.fake_alibaba.actions.registry import Answer, Parameters, action
from lab.fake_alibaba.capacity import require_place
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError
from lab.fake_alibaba.parameters import number, text
from lab.fake_alibaba.records import ATTACHING, AVAILABLE, DETACHING, IN_USE, PRIMARY, Instance, Interface


def attach(cloud: Cloud, interface: Interface, instance: Instance, *, network_card: int, delay_s: float) -> None:
    """Begins the attachment, which is there after `delay_s`. Raises ApiError."""
    if interface.status != AVAILABLE:
        raise state_error(interface)
    if interface.vpc_id != instance.vpc_id:
        raise ApiError("InvalidOperation.VpcMismatch", "The interface and the instance are in different VPCs.")
    if interface.zone != instance.zone:
        raise ApiError(
            "InvalidOperation.AvailabilityZoneMismatch", "The interface and the instance are in different zones."
        )
    place = require_place(cloud, instance, interface)
    cloud.put_interface(
        replace(interface, instance_id=instance.id, place=place, network_card=network_card, status=ATTACHING)
    )
    cloud.later(delay_s, partial(cloud.arrive, interface.id, ATTACHING, IN_USE))


@action("AttachNetworkInterface")
def attach_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, text(parameters, "NetworkInterfaceId"))
    instance = cloud.find(cloud.instances, text(parameters, "InstanceId"))
    if instance.state not in ("Running", "Stopped"):
        raise ApiError("IncorrectInstanceStatus", f"The status {instance.state} of {instance.id} does not allow this.")
    card = number(parameters, "NetworkCardIndex", 0, 0, 0)
    attach(cloud, interface, instance, network_card=card, delay_s=cloud.faults.attach_s)
    return {}


@action("DetachNetworkInterface")
def detach_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, text(parameters, "NetworkInterfaceId"))
    instance = cloud.find(cloud.instances, text(parameters, "InstanceId"))
    if interface.status != IN_USE or interface.instance_id != instance.id:
        raise state_error(interface)
    if interface.kind == PRIMARY:
        raise ApiError("InvalidOperation.DetachPrimaryEniNotAllowed", "A primary interface cannot be detached.")
    cloud.put_interface(replace(interface, status=DETACHING))
    cloud.later(cloud.faults.detach_s, partial(cloud.arrive, interface.id, DETACHING, AVAILABLE))
    return {}
