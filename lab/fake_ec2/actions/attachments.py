"""Attach, detach, and attributes of interfaces."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lab.fake_ec2.actions.interfaces import groups
from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.capacity import require_addresses, require_kind, require_slot
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError, invalid, missing
from lab.fake_ec2.records import Attachment, Instance, Interface


def attach(
    cloud: Cloud,
    interface: Interface,
    instance: Instance,
    *,
    device_index: int,
    network_card: int,
    delete_on_termination: bool,
    delay_s: float,
) -> Attachment:
    """Begins the attachment, which is there after `delay_s`. Raises ApiError."""
    if interface.attachment is not None:
        raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    if interface.zone != instance.zone:
        raise ApiError(
            "InvalidParameterCombination",
            "You may not attach a network interface to an instance if they are not in the same availability zone",
        )
    require_slot(cloud, instance, device_index, network_card)
    slots = len(interface.addresses) + len(interface.prefixes)
    prefixes = bool(interface.prefixes or interface.ipv6_prefixes)
    require_addresses(instance.type, slots, interface.ipv6_slots, prefixes=prefixes)
    require_kind(cloud, instance, interface)
    made = Attachment(
        id=cloud.new_id("eni-attach"),
        instance_id=instance.id,
        device_index=device_index,
        network_card=network_card,
        status="attaching" if delay_s > 0 else "attached",
        attached_at=cloud.clock(),
        delete_on_termination=delete_on_termination,
    )
    cloud.put_interface(replace(interface, attachment=made))
    if delay_s > 0:
        cloud.later(delay_s, partial(cloud.set_attachment_status, interface.id, made.id, "attached"))
    return made


@action("AttachNetworkInterface")
def attach_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    instance = cloud.find(cloud.instances, parameters["InstanceId"])
    if parameters["DeviceIndex"] < 0:
        raise invalid(parameters["DeviceIndex"], "deviceIndex", "It must be 0 or more.")
    if instance.state not in ("running", "stopped"):
        raise ApiError(
            "IncorrectState", f"Instance '{instance.id}' is not in a valid state for this operation: {instance.state}"
        )
    card = parameters.get("NetworkCardIndex", 0)
    made = attach(
        cloud, interface, instance, device_index=parameters["DeviceIndex"], network_card=card,
        delete_on_termination=False, delay_s=cloud.faults.attach_s,
    )  # fmt: skip
    return {"AttachmentId": made.id, "NetworkCardIndex": card}


@action("DetachNetworkInterface")
def detach_network_interface(cloud: Cloud, parameters: Parameters) -> Answer:
    interface = _by_attachment(cloud, parameters["AttachmentId"])
    attachment = interface.attachment
    assert attachment is not None
    if (attachment.device_index, attachment.network_card) == (0, 0):
        raise ApiError("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    if attachment.status == "detaching":
        raise ApiError("IncorrectState", f"The attachment '{attachment.id}' is being detached already")
    delay_s = cloud.faults.detach_s
    if delay_s > 0:
        cloud.put_interface(replace(interface, attachment=replace(attachment, status="detaching")))
    cloud.later(delay_s, partial(cloud.set_attachment_status, interface.id, attachment.id, "detached"))
    return {}


def _by_attachment(cloud: Cloud, attachment_id: str) -> Interface:
    if not attachment_id.startswith("eni-attach-"):
        raise ApiError("InvalidAttachmentID.Malformed", f'Invalid id: "{attachment_id}"')
    if attachment_id not in cloud.attachments:
        raise ApiError("InvalidAttachmentID.NotFound", f"The attachment ID '{attachment_id}' does not exist")
    return cloud.interfaces.current[cloud.attachments[attachment_id]]


@action("ModifyNetworkInterfaceAttribute")
def modify_network_interface_attribute(cloud: Cloud, parameters: Parameters) -> Answer:
    """One attribute a call, as in EC2."""
    interface = cloud.find(cloud.interfaces, parameters["NetworkInterfaceId"])
    asked = [name for name in ("Attachment", "Description", "Groups", "SourceDestCheck") if name in parameters]
    if not asked:
        raise ApiError("MissingParameter", "The request must contain exactly one attribute to be modified")
    if len(asked) > 1:
        raise ApiError("InvalidParameterCombination", "Fields for multiple attribute types specified")
    cloud.put_interface(_modified(cloud, interface, asked[0], parameters))
    return {}


def _modified(cloud: Cloud, interface: Interface, attribute: str, parameters: Parameters) -> Interface:
    value = parameters[attribute]
    if attribute == "Groups":
        return replace(interface, group_ids=groups(cloud, interface.vpc_id, value))
    if attribute == "Description":
        return replace(interface, description=value.get("Value", ""))
    if attribute == "SourceDestCheck":
        return replace(interface, source_dest_check=value.get("Value", True))
    if "AttachmentId" not in value:
        raise missing("attachment.attachmentId")
    attachment = interface.attachment
    if attachment is None or attachment.id != value["AttachmentId"]:
        raise ApiError("InvalidAttachmentID.NotFound", f"The attachment ID '{value['AttachmentId']}' does not exist")
    if "DeleteOnTermination" not in value:
        raise missing("attachment.deleteOnTermination")
    return replace(interface, attachment=replace(attachment, delete_on_termination=value["DeleteOnTermination"]))
