"""The answers of ECS and VPC as the domain's facts.

Every function reads what an answer must have by its key and raises KeyError, TypeError or ValueError when the answer
is not what Alibaba Cloud gives; the provider makes one error of these.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ipam.model import CloudInterface, Instance, Limits, PublicAddress, SecurityGroup, Subnet

Answer = Mapping[str, Any]

# States of an instance that holds interfaces. One that is released is listed no more.
LIVE_STATES: Final = frozenset({"Pending", "Starting", "Running", "Stopping", "Stopped"})
EXCLUDED: Final = "excluded"
# Trunk and member interfaces carry other people's pods.
POD_KINDS: Final = frozenset({"Primary", "Secondary"})
ATTACHED, ATTACHING, DETACHING = "in-use", "attaching", "detaching"
UNBORN: Final = frozenset({"creating", "pending"})
_STATUS: Final = {"InUse": ATTACHED}
_GATEWAY: Final = -3  # the first address of a vSwitch and the last three are the cloud's; the gateway is one of them


def rows(answer: Answer, outer: str, inner: str) -> list[Answer]:
    """The rows of a listing. An empty listing has the outer key, too; an answer without it is none."""
    return list(answer[outer].get(inner) or ())


def by_id(found: Iterable[Answer], key: str) -> dict[str, Answer]:
    return {str(row[key]): row for row in found}


def nested(row: Answer, outer: str, inner: str) -> list[Any]:
    """A list in a row, which may be left out."""
    return list((row.get(outer) or {}).get(inner) or ())


def tags(row: Answer) -> dict[str, str]:
    """ECS says TagKey and TagValue, VPC Key and Value."""
    found = nested(row, "Tags", "Tag")
    return {
        str(each.get("TagKey") or each["Key"]): str(each.get("TagValue") or each.get("Value") or "") for each in found
    }


def address(text: object) -> str:
    """An IPv4 address in its canonical form."""
    return str(ipaddress.IPv4Address(text))


def prefix(text: object) -> str:
    """A delegated IPv4 prefix in its canonical form."""
    return str(ipaddress.IPv4Network(text))


def interface(row: Answer, exclude: Mapping[str, str]) -> CloudInterface:
    """An interface of DescribeNetworkInterfaces or CreateNetworkInterface; `numbered` gives it a device index.

    `status` is "in-use" when attached, "available" when attached to nothing, else what ECS says ("attaching",
    "detaching", "creating"). One that is excluded by its tags, is of another kind (trunk, member) or is managed by a
    service of the cloud keeps its place, but has no addresses and the status "excluded".
    """
    interface_id = str(row["NetworkInterfaceId"])
    instance_id = str(row.get("InstanceId") or "")
    primary = address(row["PrivateIpAddress"])
    listed = [address(each["PrivateIpAddress"]) for each in nested(row, "PrivateIpSets", "PrivateIpSet")]
    status = str(row.get("Status") or "available")
    kind = str(row.get("Type") or "Secondary")
    found = CloudInterface(
        id=interface_id,
        mac=str(row["MacAddress"]).lower(),
        subnet_id=str(row["VSwitchId"]),
        vpc_id=str(row["VpcId"]),
        zone=str(row.get("ZoneId") or ""),
        primary_address=primary,
        addresses=tuple(each for each in listed if each != primary),
        instance_id=instance_id,
        attachment_id=f"{instance_id}/{interface_id}" if instance_id else "",
        device_index=0 if kind == "Primary" else 1,
        network_card=int((row.get("Attachment") or {}).get("NetworkCardIndex") or 0),
        security_group_ids=tuple(map(str, nested(row, "SecurityGroupIds", "SecurityGroupId"))),
        tags=tags(row),
        delete_on_termination=bool(row.get("DeleteOnRelease", False)),
        status=_STATUS.get(status, status.lower()),
        created_at=_seconds(row.get("CreationTime")),
        prefixes=tuple(prefix(each["Ipv4Prefix"]) for each in nested(row, "Ipv4PrefixSets", "Ipv4PrefixSet")),
        public_address_id=str((row.get("AssociatedPublicIp") or {}).get("AllocationId") or ""),
    )
    tagged = bool(exclude) and all(found.tags.get(key) == value for key, value in exclude.items())
    if tagged or kind not in POD_KINDS or row.get("ServiceManaged"):
        return replace(found, status=EXCLUDED, addresses=(), prefixes=())
    return found


def _seconds(text: object) -> float:
    """A time of ECS, such as 2026-05-12T10:11:12Z, in seconds since the epoch."""
    if not text:
        return 0.0
    return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()


def numbered(interfaces: Iterable[CloudInterface]) -> list[CloudInterface]:
    """Interfaces of one instance with device indices. ECS has none: the primary interface is 0, the others follow from
    1 by their creation, so that a new one never moves those before it. Interfaces on their way out are left out."""
    staying = [each for each in interfaces if each.status != DETACHING]
    ordered = sorted(staying, key=lambda each: (each.device_index, each.created_at, each.id))
    first = [each for each in ordered if each.device_index == 0]
    others = [each for each in ordered if each.device_index]
    return [*first, *(replace(each, device_index=number) for number, each in enumerate(others, start=1))]


def assigned(answer: Answer) -> list[str]:
    """Addresses that AssignPrivateIpAddresses has given."""
    return [
        address(each) for each in nested(answer["AssignedPrivateIpAddressesSet"], "PrivateIpSet", "PrivateIpAddress")
    ]


def assigned_prefixes(answer: Answer) -> list[str]:
    return [prefix(each) for each in nested(answer["AssignedPrivateIpAddressesSet"], "Ipv4PrefixSet", "Ipv4Prefixes")]


def instance(row: Answer, interfaces: Iterable[CloudInterface]) -> Instance:
    """An elastic IP of the primary interface may be told as the instance's only, which it is bound to."""
    place = row.get("VpcAttributes") or {}
    bound = str((row.get("EipAddress") or {}).get("AllocationId") or "")
    own = (
        each if each.device_index or each.public_address_id else replace(each, public_address_id=bound)
        for each in numbered(interfaces)
    )
    return Instance(
        id=str(row["InstanceId"]),
        type=str(row["InstanceType"]),
        zone=str(row["ZoneId"]),
        vpc_id=str(place.get("VpcId") or ""),
        subnet_id=str(place.get("VSwitchId") or ""),
        tags=tags(row),
        security_group_ids=tuple(map(str, nested(row, "SecurityGroupIds", "SecurityGroupId"))),
        interfaces=tuple(own),
    )


def live_instances(answer: Answer) -> list[Answer]:
    """Rows of DescribeInstances that hold interfaces, or will."""
    return [row for row in rows(answer, "Instances", "Instance") if row["Status"] in LIVE_STATES]


def primary_interfaces(answer: Answer) -> dict[str, str]:
    """Of DescribeInstances: ids of primary interfaces by instance."""
    return {
        str(row["InstanceId"]): str(each["NetworkInterfaceId"])
        for row in rows(answer, "Instances", "Instance")
        for each in nested(row, "NetworkInterfaces", "NetworkInterface")
        if each.get("Type") == "Primary"
    }


def by_instance(interfaces: Iterable[CloudInterface]) -> dict[str, list[CloudInterface]]:
    found: dict[str, list[CloudInterface]] = {}
    for each in interfaces:
        if each.instance_id:
            found.setdefault(each.instance_id, []).append(each)
    return found


def subnet(row: Answer, vpc_cidrs: Mapping[str, tuple[str, ...]]) -> Subnet:
    vpc_id = str(row["VpcId"])
    network = ipaddress.IPv4Network(row["CidrBlock"])
    return Subnet(
        id=str(row["VSwitchId"]),
        cidr=str(network),
        zone=str(row["ZoneId"]),
        vpc_id=vpc_id,
        free=max(0, int(row["AvailableIpAddressCount"])),
        tags=tags(row),
        vpc_cidrs=vpc_cidrs.get(vpc_id, ()),
        gateway=str(network[_GATEWAY]),
    )


def vpc(row: Answer) -> tuple[str, tuple[str, ...]]:
    """A VPC's id and CIDRs, the primary block first."""
    blocks = [row["CidrBlock"], *nested(row, "SecondaryCidrBlocks", "SecondaryCidrBlock")]
    return str(row["VpcId"]), tuple(dict.fromkeys(str(ipaddress.IPv4Network(block)) for block in blocks))


def security_group(row: Answer) -> SecurityGroup:
    return SecurityGroup(id=str(row["SecurityGroupId"]), vpc_id=str(row.get("VpcId") or ""), tags=tags(row))


def limits(row: Answer) -> Limits:
    interfaces = int(row["EniQuantity"])
    return Limits(
        instance_type=str(row["InstanceTypeId"]),
        interfaces=interfaces,
        ipv4_per_interface=int(row["EniPrivateIpAddressQuantity"]),
        ipv6_per_interface=int(row.get("EniIpv6AddressQuantity") or 0),
        # ECS does not say; types that take secondary interfaces take prefixes.
        prefixes=interfaces > 1,
        network_cards=int(row.get("NetworkCardQuantity") or 1),
    )


def public_addresses(listed: Sequence[Answer], primary_of: Mapping[str, str]) -> list[PublicAddress]:
    """Elastic IPs. One that leads to an instance leads to its primary interface.

    :param primary_of: primary interfaces by instance, as far as they are known.
    """
    return [
        PublicAddress(
            id=str(row["AllocationId"]),
            address=address(row["IpAddress"]),
            interface_id=primary_of.get(target := str(row.get("InstanceId") or ""), target),
            tags=tags(row),
        )
        for row in listed
    ]
