"""Instances: run, describe, stop, start, delete; and what types there are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lab.fake_alibaba.actions import describe
from lab.fake_alibaba.actions.attachments import attach
from lab.fake_alibaba.actions.interfaces import build
from lab.fake_alibaba.actions.registry import Answer, Parameters, action
from lab.fake_alibaba.actions.tags import has
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError, missing
from lab.fake_alibaba.limits import instance_type, instance_types
from lab.fake_alibaba.pages import page
from lab.fake_alibaba.parameters import flag, json_texts, number, tags, text, texts
from lab.fake_alibaba.records import PRIMARY, Instance

_MOST_AT_ONCE = 100
# The word that each of them has in its call.
_STATES = {"StopInstance": ("Running", "Stopped"), "StartInstance": ("Stopped", "Running")}


@action("RunInstances")
def run_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    """All of them or none."""
    if made := cloud.tokens.made("RunInstances", parameters):
        return {"InstanceIdSets": {"InstanceIdSet": list(made)}}
    if not parameters.get("ImageId"):
        raise missing("ImageId")
    count = number(parameters, "Amount", 1, 1, _MOST_AT_ONCE)
    launched: list[str] = []
    try:
        for _ in range(count):
            launched.append(_launch(cloud, parameters))  # noqa: PERF401 (a refusal undoes what is there by then)
    except ApiError:
        for instance_id in launched:
            _release(cloud, cloud.instances.current[instance_id])
        raise
    for instance_id in launched:
        cloud.later(cloud.faults.boot_s, partial(_boot, cloud, instance_id))
    cloud.tokens.remember("RunInstances", parameters, tuple(launched))
    return {"InstanceIdSets": {"InstanceIdSet": launched}}


def _launch(cloud: Cloud, parameters: Parameters) -> str:
    facts = instance_type(text(parameters, "InstanceType"))
    vswitch = cloud.find(cloud.vswitches, text(parameters, "VSwitchId"))
    one, many = parameters.get("SecurityGroupId"), texts(parameters, "SecurityGroupIds")
    named = tags(parameters)
    asked = {"PrimaryIpAddress": parameters.get("PrivateIpAddress")}
    interface = build(cloud, vswitch, [one] if one else many, asked, kind=PRIMARY)
    instance = Instance(
        number=cloud.new_number(), id=cloud.new_id("i"), type=facts, vpc_id=vswitch.vpc_id, vswitch_id=vswitch.id,
        zone=vswitch.zone, image_id=parameters["ImageId"], launched_at=cloud.clock(),
        group_ids=interface.group_ids, private_address=interface.addresses[0], tags=named,
    )  # fmt: skip
    cloud.instances.put(instance)
    cloud.put_interface(interface)
    attach(cloud, interface, instance, network_card=0, delay_s=0)
    return instance.id


def _boot(cloud: Cloud, instance_id: str) -> None:
    instance = cloud.instances.current.get(instance_id)
    if instance is not None and instance.state == "Pending":
        cloud.instances.put(replace(instance, state="Running"))
        cloud.changed()


@action("DescribeInstances")
def describe_instances(cloud: Cloud, parameters: Parameters) -> Answer:
    ids = json_texts(parameters, "InstanceIds")
    asked = {
        "vpc_id": parameters.get("VpcId"), "vswitch_id": parameters.get("VSwitchId"),
        "zone": parameters.get("ZoneId"), "state": parameters.get("Status"),
    }  # fmt: skip
    if ids:
        seen = (cloud.instances.seen(each) for each in ids)
        records = sorted((each for each in seen if each), key=lambda each: each.number)
    else:
        records = list(cloud.instances.readable())
    kept = [
        each
        for each in records
        if all(not value or getattr(each, name) == value for name, value in asked.items()) and has(each, parameters)
    ]
    found, told = page(kept, "DescribeInstances", parameters, largest=100)
    return {"Instances": {"Instance": [describe.instance(cloud, each) for each in found]}, **told}


@action("DeleteInstance")
def delete_instance(cloud: Cloud, parameters: Parameters) -> Answer:
    """Interfaces go with their instance if they are to; the others are left, attached to nothing."""
    instance = cloud.find(cloud.instances, text(parameters, "InstanceId"))
    if instance.state != "Stopped" and not flag(parameters, "Force"):
        raise ApiError("IncorrectInstanceStatus", f"The status {instance.state} of {instance.id} does not allow this.")
    _release(cloud, instance)
    return {}


def _release(cloud: Cloud, instance: Instance) -> None:
    for interface in cloud.interfaces_of(instance.id):
        if interface.delete_on_release:
            cloud.drop_interface(interface)
        else:
            cloud.part(interface)
    cloud.instances.remove(instance.id)
    cloud.attached.pop(instance.id, None)
    cloud.changed()


def _change(cloud: Cloud, parameters: Parameters, name: str) -> Answer:
    instance = cloud.find(cloud.instances, text(parameters, "InstanceId"))
    before, after = _STATES[name]
    if instance.state not in (before, after):
        raise ApiError("IncorrectInstanceStatus", f"The status {instance.state} of {instance.id} does not allow this.")
    cloud.instances.put(replace(instance, state=after))
    cloud.changed()
    return {}


@action("StopInstance")
def stop_instance(cloud: Cloud, parameters: Parameters) -> Answer:
    return _change(cloud, parameters, "StopInstance")


@action("StartInstance")
def start_instance(cloud: Cloud, parameters: Parameters) -> Answer:
    return _change(cloud, parameters, "StartInstance")


@action("DescribeInstanceTypes")
def describe_instance_types(cloud: Cloud, parameters: Parameters) -> Answer:
    """Types that the table lacks are left out. All of them come on one page."""
    wanted = texts(parameters, "InstanceTypes", 10)
    found = [each for each in instance_types().values() if not wanted or each.name in wanted]
    return {"InstanceTypes": {"InstanceType": [describe.instance_type(each) for each in found]}, "NextToken": ""}
