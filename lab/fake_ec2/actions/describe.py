"""Records as the answers' structures, by the names that SDKs use."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from lab.fake_ec2.actions.tags import told
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.protocol.rendering import Rendered, element
from lab.fake_ec2.records import (
    Association,
    Attachment,
    ElasticIp,
    Instance,
    Interface,
    SecurityGroup,
    Subnet,
    Vpc,
)

_STATE_CODES = {"pending": 0, "running": 16, "stopped": 80, "terminated": 48}

Structure = dict[str, Any]


def arn(cloud: Cloud, kind: str, record_id: str) -> str:
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:{kind}/{record_id}"


def vpc(cloud: Cloud, record: Vpc) -> Structure:
    block = {"AssociationId": f"vpc-cidr-assoc-{record.id[4:]}", "CidrBlock": record.cidr}
    return {
        "VpcId": record.id,
        "OwnerId": cloud.account,
        "State": "available",
        "CidrBlock": record.cidr,
        "CidrBlockAssociationSet": [{**block, "CidrBlockState": {"State": "associated"}}],
        "Ipv6CidrBlockAssociationSet": _ipv6_block(record.ipv6_cidr),
        "DhcpOptionsId": "default",
        "InstanceTenancy": "default",
        "IsDefault": record.is_default,
        "Tags": told(record.tags),
    }


def subnet(cloud: Cloud, record: Subnet) -> Structure:
    return {
        "SubnetId": record.id,
        "SubnetArn": arn(cloud, "subnet", record.id),
        "VpcId": record.vpc_id,
        "OwnerId": cloud.account,
        "State": "available",
        "CidrBlock": record.cidr,
        "Ipv6CidrBlockAssociationSet": _ipv6_block(record.ipv6_cidr),
        "AvailabilityZone": record.zone,
        "AvailableIpAddressCount": cloud.spaces[record.id].free,
        "DefaultForAz": False,
        "MapPublicIpOnLaunch": False,
        "AssignIpv6AddressOnCreation": False,
        "Tags": told(record.tags),
    }


def _ipv6_block(cidr: str) -> list[Structure]:
    return [{"Ipv6CidrBlock": cidr, "Ipv6CidrBlockState": {"State": "associated"}}] if cidr else []


def security_group(cloud: Cloud, record: SecurityGroup) -> Structure:
    return {
        "GroupId": record.id,
        "GroupName": record.name,
        "Description": record.description,
        "OwnerId": cloud.account,
        "VpcId": record.vpc_id,
        "SecurityGroupArn": arn(cloud, "security-group", record.id),
        "IpPermissions": [],
        "IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
        "Tags": told(record.tags),
    }


def group_names(cloud: Cloud, group_ids: tuple[str, ...]) -> list[Structure]:
    return [{"GroupId": each, "GroupName": cloud.groups.current[each].name} for each in group_ids]


def attachment(cloud: Cloud, record: Attachment) -> Structure:
    return {
        "AttachmentId": record.id,
        "AttachTime": record.attached_at,
        "DeleteOnTermination": record.delete_on_termination,
        "DeviceIndex": record.device_index,
        "NetworkCardIndex": record.network_card,
        "InstanceId": record.instance_id,
        "InstanceOwnerId": cloud.account,
        "Status": record.status,
    }


def _addresses(cloud: Cloud, record: Interface) -> list[Structure]:
    return [
        {"PrivateIpAddress": address, "Primary": place == 0, "PrivateDnsName": dns_name(cloud, address)}
        for place, address in enumerate(record.addresses)
    ]


def _common(cloud: Cloud, record: Interface) -> Structure:
    return {
        "NetworkInterfaceId": record.id,
        "OwnerId": cloud.account,
        "VpcId": record.vpc_id,
        "SubnetId": record.subnet_id,
        "MacAddress": record.mac,
        "Description": record.description,
        "InterfaceType": record.interface_type,
        "Status": record.status,
        "SourceDestCheck": record.source_dest_check,
        "PrivateIpAddress": record.addresses[0],
        "PrivateDnsName": dns_name(cloud, record.addresses[0]),
        "PrivateIpAddresses": _addresses(cloud, record),
        "Ipv4Prefixes": [{"Ipv4Prefix": each} for each in record.prefixes] or None,
        "Ipv6Addresses": [{"Ipv6Address": each} for each in record.ipv6_addresses],
        "Ipv6Prefixes": [{"Ipv6Prefix": each} for each in record.ipv6_prefixes] or None,
        "Groups": group_names(cloud, record.group_ids),
    }


def association(cloud: Cloud, record: Association) -> Structure:
    return {
        "AllocationId": record.allocation_id,
        "AssociationId": record.id,
        "IpOwnerId": cloud.account,
        "PublicIp": record.public_address,
    }


def elastic_ip(cloud: Cloud, record: ElasticIp) -> Structure:
    interface = cloud.interfaces.current.get(record.interface_id)
    attachment = interface.attachment if interface else None
    return {
        "AllocationId": record.id,
        "PublicIp": record.address,
        "Domain": "vpc",
        "NetworkBorderGroup": cloud.region,
        "AssociationId": record.association_id or None,
        "NetworkInterfaceId": record.interface_id or None,
        "NetworkInterfaceOwnerId": cloud.account if record.interface_id else None,
        "PrivateIpAddress": interface.addresses[0] if interface else None,
        "InstanceId": attachment.instance_id if attachment else None,
        "Tags": told(record.tags),
    }


def interface(cloud: Cloud, record: Interface) -> Structure:
    return {
        **_common(cloud, record),
        "AvailabilityZone": record.zone,
        "Attachment": attachment(cloud, record.attachment) if record.attachment else None,
        "RequesterManaged": record.requester_managed,
        "Association": association(cloud, record.association) if record.association else None,
        "TagSet": told(record.tags),
    }


def interface_element(cloud: Cloud, record: Interface) -> Rendered:
    """The same as an element of DescribeNetworkInterfaces, rendered once for each state of the interface."""
    known = cloud.rendered.get(record.id)
    if known is not None and known[0] is record:
        return known[1]
    rendered = element("DescribeNetworkInterfaces", "NetworkInterfaces", interface(cloud, record))
    if cloud.interfaces.current.get(record.id) is record:
        cloud.rendered[record.id] = (record, rendered)
    return rendered


def instance(cloud: Cloud, record: Instance, interfaces: list[Interface]) -> Structure:
    address = record.private_address if record.state != "terminated" else None
    return {
        "InstanceId": record.id,
        "ImageId": record.image_id,
        "InstanceType": record.type.name,
        "State": state(record.state),
        "LaunchTime": record.launched_at,
        "Placement": {"AvailabilityZone": record.zone, "Tenancy": "default"},
        "Architecture": record.type.architectures[-1],
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "RootDeviceType": "ebs",
        "Monitoring": {"State": "disabled"},
        "AmiLaunchIndex": 0,
        "SourceDestCheck": True,
        "PrivateIpAddress": address,
        "PrivateDnsName": dns_name(cloud, address) if address else "",
        "SubnetId": record.subnet_id if address else None,
        "VpcId": record.vpc_id if address else None,
        "SecurityGroups": group_names(cloud, record.group_ids),
        "NetworkInterfaces": [_instance_interface(cloud, each) for each in interfaces],
        "Tags": told(record.tags),
    }


def _instance_interface(cloud: Cloud, record: Interface) -> Structure:
    assert record.attachment is not None
    told_attachment = attachment(cloud, record.attachment)
    del told_attachment["InstanceId"], told_attachment["InstanceOwnerId"]
    return {**_common(cloud, record), "Status": "in-use", "Attachment": told_attachment}


def state(name: str) -> Mapping[str, Any]:
    return {"Code": _STATE_CODES[name], "Name": name}


def dns_name(cloud: Cloud, address: str) -> str:
    host = "ip-" + str(ipaddress.IPv4Address(address)).replace(".", "-")
    return f"{host}.ec2.internal" if cloud.region == "us-east-1" else f"{host}.{cloud.region}.compute.internal"
