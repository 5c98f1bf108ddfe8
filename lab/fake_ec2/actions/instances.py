"""Instances: run, describe, stop, start, terminate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lab.fake_ec2.actions import describe
from lab.fake_ec2.actions.attachments import attach
from lab.fake_ec2.actions.interfaces import build
from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.actions.tags import specified
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError, invalid, missing
from lab.fake_ec2.filters import keep
from lab.fake_ec2.limits import InstanceType, instance_type
from lab.fake_ec2.pages import page
from lab.fake_ec2.records import Instance, Interface, Subnet

# A terminated instance is told of for a while, then forgotten.
TERMINATED_VISIBLE_S: Final = 300.0
_MOST_AT_ONCE: Final = 1000
_CODES: Final = {"pending": "0", "running": "16", "terminated": "48", "stopped": "80"}

_FACTS: dict[str, Any] = {
    "instance-id": lambda each: each.id,
    "instance-type": lambda each: each.type.name,
    "instance-state-name": lambda each: each.state,
    "instance-state-code": lambda each: _CODES[each.state],
    "vpc-id": lambda each: each.vpc_id,
    "subnet-id": lambda each: each.subnet_id,
    "availability-zone": lambda each: each.zone,
    "private-ip-address": lambda each: each.private_address,
    "image-id": lambda each: each.image_id,
    "reservation-id": lambda each: each.reservation_id,
    "instance.group-id": lambda each: each.group_ids,
    "group-id": lambda each: each.group_ids,
    "tags": lambda each: each.tags,
}


@action("RunInstances")
def run_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    if made := cloud.tokens.made("RunInstances", parameters):
        known = [cloud.instances.current[each] for each in made if each in cloud.instances.current]
        return _reservation(cloud, known)
    if not parameters.get("ImageId"):
        raise missing("ImageId")
    least, most = parameters["MinCount"], parameters["MaxCount"]
    if not 1 <= least <= most <= _MOST_AT_ONCE:
        raise invalid(most, "maxCount", f"minCount must be 1 or more, maxCount no less and at most {_MOST_AT_ONCE}.")
    facts = instance_type(parameters.get("InstanceType", "m5.large"))
    tags = specified(parameters, "instance", "network-interface")
    launched: list[Instance] = []
    reservation_id = cloud.new_id("r")
    for _ in range(most):
        try:
            launched.append(_launch(cloud, parameters, facts, tags, reservation_id))
        except ApiError:
            if len(launched) >= least:
                break
            for instance in launched:
                _discard(cloud, instance)
            raise
    cloud.tokens.remember("RunInstances", parameters, tuple(each.id for each in launched))
    told = [replace(each, state="pending") for each in launched]
    for instance in launched:
        cloud.later(cloud.faults.boot_s, partial(_boot, cloud, instance.id))
    return _reservation(cloud, told)


def _launch(
    cloud: Cloud,
    parameters: Parameters,
    facts: InstanceType,
    tags: Mapping[str, Mapping[str, str]],
    reservation_id: str,
) -> Instance:
    """One instance with its interfaces attached. Raises ApiError, and nothing is left then."""
    cards = parameters.get("NetworkInterfaces") or [{**_of_primary(parameters), "DeviceIndex": 0}]
    primary = next((each for each in cards if not each.get("DeviceIndex") and not each.get("NetworkCardIndex")), None)
    if primary is None:
        raise ApiError("InvalidParameterCombination", "An interface at device index 0 must be specified")
    subnet = _subnet(cloud, primary)
    image_id = parameters["ImageId"]
    instance = Instance(
        number=cloud.new_number(), id=cloud.new_id("i"), type=facts, vpc_id=subnet.vpc_id, subnet_id=subnet.id,
        zone=subnet.zone, image_id=image_id, launched_at=cloud.clock(), reservation_id=reservation_id,
        tags=tags["instance"],
    )  # fmt: skip
    cloud.instances.put(instance)
    try:
        for card in sorted(cards, key=lambda each: each.get("DeviceIndex", 0)):
            interface = _interface(cloud, card, tags["network-interface"])
            attach(
                cloud, interface, instance, device_index=card.get("DeviceIndex", 0),
                network_card=card.get("NetworkCardIndex", 0),
                delete_on_termination=card.get("DeleteOnTermination", "NetworkInterfaceId" not in card), delay_s=0,
            )  # fmt: skip
    except ApiError:
        _discard(cloud, instance)
        raise
    first = cloud.interfaces_of(instance.id)[0]
    instance = replace(instance, group_ids=first.group_ids, private_address=first.addresses[0])
    cloud.instances.put(instance)
    cloud.changed()
    return instance


def _of_primary(parameters: Parameters) -> dict[str, Any]:
    """What RunInstances itself says of the first interface, in the words of an interface's specification."""
    if parameters.get("SecurityGroups"):
        raise ApiError("InvalidParameterCombination", "Security groups of a VPC are named by SecurityGroupIds")
    names = {"SubnetId": "SubnetId", "SecurityGroupIds": "Groups", "PrivateIpAddress": "PrivateIpAddress",
             "Ipv6AddressCount": "Ipv6AddressCount", "Ipv6Addresses": "Ipv6Addresses"}  # fmt: skip
    return {ours: parameters[theirs] for theirs, ours in names.items() if theirs in parameters}


def _subnet(cloud: Cloud, card: Mapping[str, Any]) -> Subnet:
    if "NetworkInterfaceId" in card:
        return cloud.subnets.current[cloud.find(cloud.interfaces, card["NetworkInterfaceId"]).subnet_id]
    if "SubnetId" in card:
        return cloud.find(cloud.subnets, card["SubnetId"])
    for subnet in cloud.subnets.current.values():
        if cloud.vpcs.current[subnet.vpc_id].is_default:
            return subnet
    raise ApiError("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")


def _interface(cloud: Cloud, card: Mapping[str, Any], tags: Mapping[str, str]) -> Interface:
    if "NetworkInterfaceId" in card:
        return cloud.find(cloud.interfaces, card["NetworkInterfaceId"])
    interface = build(cloud, _subnet(cloud, card), card, tags)
    cloud.put_interface(interface)
    return interface


def _discard(cloud: Cloud, instance: Instance) -> None:
    """The launch failed: what it made goes, what it was given is detached."""
    for interface in cloud.interfaces_of(instance.id):
        _part(cloud, interface)
    for interface in [each for each in cloud.interfaces.current.values() if each.number > instance.number]:
        if interface.attachment is None:
            cloud.drop_interface(interface)
    cloud.instances.remove(instance.id)


def _part(cloud: Cloud, interface: Interface) -> None:
    if interface.attachment is not None and interface.attachment.delete_on_termination:
        cloud.drop_interface(interface)
    else:
        cloud.put_interface(replace(interface, attachment=None))


def _boot(cloud: Cloud, instance_id: str) -> None:
    instance = cloud.instances.current.get(instance_id)
    if instance is not None and instance.state == "pending":
        cloud.instances.put(replace(instance, state="running"))
        cloud.changed()


def _reservation(cloud: Cloud, instances: list[Instance]) -> dict[str, Any]:
    rows = [describe.instance(cloud, each, cloud.interfaces_of(each.id)) for each in instances]
    reservation_id = instances[0].reservation_id if instances else cloud.new_id("r")
    return {"ReservationId": reservation_id, "OwnerId": cloud.account, "Groups": [], "Instances": rows}


@action("DescribeInstances")
def describe_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    facts = {
        **_FACTS,
        "network-interface.network-interface-id": lambda each: [one.id for one in cloud.interfaces_seen_of(each.id)],
    }
    records = keep(cloud.read(cloud.instances, parameters.get("InstanceIds")), parameters.get("Filters"), facts)
    found, token = page(records, "DescribeInstances", parameters, ids="InstanceIds")
    reservations: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        told = describe.instance(cloud, each, cloud.interfaces_seen_of(each.id))
        reservations.setdefault(each.reservation_id, []).append(told)
    rows = [
        {"ReservationId": key, "OwnerId": cloud.account, "Groups": [], "Instances": instances}
        for key, instances in reservations.items()
    ]
    return {"Reservations": rows, "NextToken": token}


def _change(cloud: Cloud, parameters: Parameters, state: str, allowed: Iterable[str]) -> list[dict[str, Any]]:
    instances = [cloud.find(cloud.instances, each) for each in dict.fromkeys(parameters["InstanceIds"])]
    for each in instances:
        if each.state not in allowed:
            raise ApiError(
                "IncorrectInstanceState", f"The instance '{each.id}' is not in a state from which it can be {state}."
            )
    for each in instances:
        if each.state != state:
            cloud.instances.put(replace(each, state=state))
            cloud.changed()
    return [
        {"InstanceId": each.id, "PreviousState": describe.state(each.state), "CurrentState": describe.state(state)}
        for each in instances
    ]


@action("StopInstances")
def stop_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    return {"StoppingInstances": _change(cloud, parameters, "stopped", ("running", "stopped"))}


@action("StartInstances")
def start_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    return {"StartingInstances": _change(cloud, parameters, "running", ("running", "stopped"))}


@action("TerminateInstances")
def terminate_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    """Interfaces go with their instance if their attachment says so; the others are left, attached to nothing."""
    rows = _change(cloud, parameters, "terminated", _CODES)
    for row in rows:
        instance_id = row["InstanceId"]
        for interface in cloud.interfaces_of(instance_id):
            _part(cloud, interface)
        forget: Callable[[], None] = partial(_forget, cloud, instance_id)
        cloud.later(TERMINATED_VISIBLE_S, forget)
    return {"TerminatingInstances": rows}


def _forget(cloud: Cloud, instance_id: str) -> None:
    if instance_id in cloud.instances.current:
        cloud.instances.remove(instance_id)
        cloud.attached.pop(instance_id, None)
        cloud.changed()
