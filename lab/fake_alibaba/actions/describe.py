"""Records as the answers' structures, by the names that SDKs use."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.limits import InstanceType
from lab.fake_alibaba.records import PRIMARY, Eip, Instance, Interface, SecurityGroup, Vpc, VSwitch

Structure = dict[str, Any]


def time_text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ecs_tags(tags: Mapping[str, str]) -> Structure:
    return {"Tag": [{"TagKey": key, "TagValue": value} for key, value in sorted(tags.items())]}


def _vpc_tags(tags: Mapping[str, str]) -> Structure:
    return {"Tag": [{"Key": key, "Value": value} for key, value in sorted(tags.items())]}


def vpc(cloud: Cloud, record: Vpc) -> Structure:
    own = [each.id for each in cloud.vswitches.readable() if each.vpc_id == record.id]
    return {
        "VpcId": record.id, "VpcName": record.name, "CidrBlock": record.cidr, "Status": "Available",
        "RegionId": cloud.region, "SecondaryCidrBlocks": {"SecondaryCidrBlock": []},
        "VSwitchIds": {"VSwitchId": own}, "Tags": _vpc_tags(record.tags),
    }  # fmt: skip


def vswitch(cloud: Cloud, record: VSwitch) -> Structure:
    return {
        "VSwitchId": record.id, "VSwitchName": record.name, "VpcId": record.vpc_id, "CidrBlock": record.cidr,
        "ZoneId": record.zone, "Status": "Available", "AvailableIpAddressCount": cloud.spaces[record.id].free,
        "Tags": _vpc_tags(record.tags),
    }  # fmt: skip


def security_group(record: SecurityGroup) -> Structure:
    return {
        "SecurityGroupId": record.id, "SecurityGroupName": record.name, "Description": record.description,
        "VpcId": record.vpc_id, "SecurityGroupType": "normal", "Tags": _ecs_tags(record.tags),
    }  # fmt: skip


def interface(cloud: Cloud, record: Interface) -> Structure:
    """The API tells no place of the device: who needs an order makes one of the times of creation."""
    eip = cloud.eips.current.get(record.eip_id) if record.kind != PRIMARY else None  # that one is its instance's
    public = {"AllocationId": eip.id, "PublicIpAddress": eip.address} if eip else {}
    addresses = [
        {"PrivateIpAddress": each, "Primary": number == 0, "AssociatedPublicIp": public if number == 0 else {}}
        for number, each in enumerate(record.addresses)
    ]
    attachment = {"InstanceId": record.instance_id, "NetworkCardIndex": record.network_card}
    return {
        "NetworkInterfaceId": record.id, "NetworkInterfaceName": record.name, "Description": record.description,
        "MacAddress": record.mac, "Type": record.kind, "Status": record.status, "VpcId": record.vpc_id,
        "VSwitchId": record.vswitch_id, "ZoneId": record.zone, "PrivateIpAddress": record.addresses[0],
        "PrivateIpSets": {"PrivateIpSet": addresses},
        "Ipv4PrefixSets": {"Ipv4PrefixSet": [{"Ipv4Prefix": each} for each in record.prefixes]},
        "Ipv6Sets": {"Ipv6Set": []}, "Ipv6PrefixSets": {"Ipv6PrefixSet": []},
        "SecurityGroupIds": {"SecurityGroupId": list(record.group_ids)}, "InstanceId": record.instance_id,
        "Attachment": attachment if record.instance_id else {}, "AssociatedPublicIp": public,
        "DeleteOnRelease": record.delete_on_release, "ServiceManaged": record.service_managed,
        "CreationTime": time_text(record.created_at), "OwnerId": cloud.account, "Tags": _ecs_tags(record.tags),
    }  # fmt: skip


def instance(cloud: Cloud, record: Instance) -> Structure:
    seen = cloud.interfaces_seen_of(record.id)
    cards = [
        {
            "NetworkInterfaceId": each.id, "MacAddress": each.mac, "PrimaryIpAddress": each.addresses[0],
            "Type": each.kind,
        }
        for each in seen
    ]  # fmt: skip
    eips = (cloud.eips.current.get(each.eip_id) for each in seen if each.kind == PRIMARY)
    bound = next(eips, None)
    return {
        "InstanceId": record.id, "InstanceName": record.id, "InstanceType": record.type.name, "Status": record.state,
        "ImageId": record.image_id, "RegionId": cloud.region, "ZoneId": record.zone,
        "InstanceNetworkType": "vpc", "CreationTime": time_text(record.launched_at),
        "VpcAttributes": {
            "VpcId": record.vpc_id, "VSwitchId": record.vswitch_id,
            "PrivateIpAddress": {"IpAddress": [record.private_address]},
        },
        "SecurityGroupIds": {"SecurityGroupId": list(record.group_ids)},
        "EipAddress": {"AllocationId": bound.id if bound else "", "IpAddress": bound.address if bound else ""},
        "NetworkInterfaces": {"NetworkInterface": cards}, "Tags": _ecs_tags(record.tags),
    }  # fmt: skip


def instance_type(facts: InstanceType) -> Structure:
    return {
        "InstanceTypeId": facts.name, "InstanceTypeFamily": facts.family, "CpuCoreCount": facts.vcpus,
        "MemorySize": facts.memory_gib, "EniQuantity": facts.interfaces, "EniTotalQuantity": facts.interfaces,
        "EniPrivateIpAddressQuantity": facts.ipv4_per_interface,
        "EniIpv6AddressQuantity": facts.ipv6_per_interface, "NetworkCardQuantity": 1,
    }  # fmt: skip


def eip(cloud: Cloud, record: Eip) -> Structure:
    return {
        "AllocationId": record.id, "IpAddress": record.address, "RegionId": cloud.region,
        "Status": "InUse" if record.target_id else "Available", "InstanceId": record.target_id,
        "InstanceType": record.target_kind, "Tags": _vpc_tags(record.tags),
    }  # fmt: skip
