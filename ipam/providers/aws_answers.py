"""EC2's answers as the domain's facts.

Every function reads what an answer must have by its key and raises KeyError, TypeError or ValueError when the answer
is not what EC2 gives; the provider makes one error of these.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ipam.model import CloudInterface, Instance, Limits, PublicAddress, SecurityGroup, Subnet

Answer = Mapping[str, Any]

# Names of EC2's states of an instance that holds interfaces.
LIVE_STATES: Final = ("pending", "running", "stopping", "stopped")
EXCLUDED: Final = "excluded"
# Trunk and branch interfaces carry other people's pods, EFA ones traffic that no kernel sees.
POD_KINDS: Final = frozenset({"interface"})


def rows(answer: Answer, key: str) -> list[Answer]:
    """The rows of a listing. An empty listing has the key, too; an answer without it is none."""
    return list(answer[key])


def tags(rows: Iterable[Answer] | None) -> dict[str, str]:
    return {str(row["Key"]): str(row.get("Value") or "") for row in rows or ()}


def prefix(text: object) -> str:
    """A delegated IPv4 prefix in its canonical form."""
    return str(ipaddress.IPv4Network(text))


def prefix6(text: object) -> str:
    return str(ipaddress.IPv6Network(text))


def address6(text: object) -> str:
    return str(ipaddress.IPv6Address(text))


def address(text: object) -> str:
    """An IPv4 address in its canonical form."""
    return str(ipaddress.IPv4Address(text))


def interface(row: Answer, exclude: Mapping[str, str]) -> CloudInterface:
    """An interface of DescribeNetworkInterfaces or CreateNetworkInterface.

    `status` is "in-use" when attached, "available" when attached to nothing, else what EC2 says ("attaching",
    "detaching", "pending"). One that is excluded by its tags, is of another kind (trunk, efa ...), has IPv6 alone or is
    managed by a service keeps its place, but has no addresses and the status "excluded".
    """
    attachment = row.get("Attachment") or {}
    listed = row.get("PrivateIpAddresses") or []
    alone = is_ipv6_only(row)
    primary = _first6(row) if alone else address(row["PrivateIpAddress"])
    secondary = [address(each["PrivateIpAddress"]) for each in listed if not each.get("Primary")]
    created = attachment.get("AttachTime")
    found = CloudInterface(
        id=str(row["NetworkInterfaceId"]),
        mac=str(row["MacAddress"]).lower(),
        subnet_id=str(row["SubnetId"]),
        vpc_id=str(row["VpcId"]),
        zone=str(row.get("AvailabilityZone", "")),
        primary_address=primary,
        addresses=tuple(each for each in secondary if each != primary),
        instance_id=str(attachment.get("InstanceId") or ""),
        attachment_id=str(attachment.get("AttachmentId") or ""),
        device_index=int(attachment.get("DeviceIndex") or 0),
        network_card=int(attachment.get("NetworkCardIndex") or 0),
        security_group_ids=tuple(str(each["GroupId"]) for each in row.get("Groups") or ()),
        tags=tags(row.get("TagSet") or row.get("Tags")),
        delete_on_termination=bool(attachment.get("DeleteOnTermination", False)),
        status=_status(row, attachment),
        created_at=created.timestamp() if created is not None else 0.0,
        prefixes=tuple(prefix(each["Ipv4Prefix"]) for each in row.get("Ipv4Prefixes") or ()),
        ipv6_addresses=tuple(
            str(ipaddress.IPv6Address(each["Ipv6Address"])) for each in row.get("Ipv6Addresses") or ()
        ),
        ipv6_prefixes=tuple(str(ipaddress.IPv6Network(each["Ipv6Prefix"])) for each in row.get("Ipv6Prefixes") or ()),
        public_address_id=str((row.get("Association") or {}).get("AllocationId") or ""),
    )
    kind = str(row.get("InterfaceType") or "interface")
    tagged = bool(exclude) and all(found.tags.get(key) == value for key, value in exclude.items())
    managed = row.get("RequesterManaged") or (row.get("Operator") or {}).get("Managed")
    if tagged or kind not in POD_KINDS or managed or alone:
        return replace(found, status=EXCLUDED, addresses=(), prefixes=(), ipv6_addresses=(), ipv6_prefixes=())
    return found


def is_ipv6_only(row: Answer) -> bool:
    """Whether a subnet, or an interface in one, has no IPv4 and so carries no pods."""
    return bool(row.get("Ipv6Native"))


def _first6(row: Answer) -> str:
    return next((address6(each["Ipv6Address"]) for each in row.get("Ipv6Addresses") or ()), "")


def _status(row: Answer, attachment: Answer) -> str:
    if not attachment.get("InstanceId"):
        return str(row.get("Status") or "available")
    attached = attachment.get("Status") or "attached"
    return "in-use" if attached == "attached" else str(attached)


def assigned(answer: Answer) -> list[str]:
    """Addresses that AssignPrivateIpAddresses has given."""
    return [address(row["PrivateIpAddress"]) for row in answer["AssignedPrivateIpAddresses"]]


def assigned_prefixes(answer: Answer) -> list[str]:
    return [prefix(row["Ipv4Prefix"]) for row in answer["AssignedIpv4Prefixes"]]


def assigned6(answer: Answer) -> list[str]:
    return [address6(text) for text in answer["AssignedIpv6Addresses"]]


def assigned_prefixes6(answer: Answer) -> list[str]:
    return [prefix6(text) for text in answer["AssignedIpv6Prefixes"]]


def public_addresses(answer: Answer) -> list[PublicAddress]:
    """Elastic IPs. Those of EC2-Classic have no allocation and are left out."""
    return [
        PublicAddress(
            id=str(row["AllocationId"]),
            address=address(row["PublicIp"]),
            interface_id=str(row.get("NetworkInterfaceId") or row.get("InstanceId") or ""),
            tags=tags(row.get("Tags")),
        )
        for row in answer["Addresses"]
        if row.get("AllocationId")
    ]


def instance(row: Answer, interfaces: Sequence[CloudInterface]) -> Instance:
    """An instance with those of `interfaces` that are its own. Interfaces on their way out are left out."""
    instance_id = str(row["InstanceId"])
    own = [each for each in interfaces if each.instance_id == instance_id and each.status != "detaching"]
    return Instance(
        id=instance_id,
        type=str(row["InstanceType"]),
        zone=str(row["Placement"]["AvailabilityZone"]),
        vpc_id=str(row.get("VpcId") or ""),
        subnet_id=str(row.get("SubnetId") or ""),
        tags=tags(row.get("Tags")),
        security_group_ids=tuple(str(each["GroupId"]) for each in row.get("SecurityGroups") or ()),
        interfaces=tuple(sorted(own, key=lambda each: (each.network_card, each.device_index))),
    )


def live_instances(answer: Answer) -> list[Answer]:
    """Rows of DescribeInstances that hold interfaces, or will."""
    rows = (row for reservation in answer["Reservations"] for row in reservation["Instances"])
    return [row for row in rows if row["State"]["Name"] in LIVE_STATES]


def ids(rows: Iterable[Answer]) -> list[str]:
    return [str(row["InstanceId"]) for row in rows]


def joined(rows: Sequence[Answer], interfaces: Iterable[CloudInterface]) -> list[Instance]:
    by_instance: dict[str, list[CloudInterface]] = {}
    for each in interfaces:
        by_instance.setdefault(each.instance_id, []).append(each)
    return [instance(row, by_instance.get(str(row["InstanceId"]), ())) for row in rows]


def subnet(row: Answer, vpc_cidrs: Mapping[str, tuple[str, ...]]) -> Subnet:
    vpc_id = str(row["VpcId"])
    return Subnet(
        id=str(row["SubnetId"]),
        cidr=str(ipaddress.IPv4Network(row["CidrBlock"])),
        zone=str(row["AvailabilityZone"]),
        vpc_id=vpc_id,
        free=max(0, int(row["AvailableIpAddressCount"])),
        tags=tags(row.get("Tags")),
        vpc_cidrs=vpc_cidrs.get(vpc_id, ()),
        ipv6_cidr=next(
            (
                str(ipaddress.IPv6Network(each["Ipv6CidrBlock"]))
                for each in row.get("Ipv6CidrBlockAssociationSet") or ()
                if (each.get("Ipv6CidrBlockState") or {}).get("State", "associated") == "associated"
            ),
            "",
        ),
    )


def vpc(row: Answer) -> tuple[str, tuple[str, ...]]:
    """A VPC's id and CIDRs. The primary block first; blocks on their way in or out are left out."""
    blocks = [row["CidrBlock"]]
    blocks += [each["CidrBlock"] for each in row.get("CidrBlockAssociationSet") or () if _associated(each)]
    return str(row["VpcId"]), tuple(dict.fromkeys(str(ipaddress.IPv4Network(block)) for block in blocks))


def _associated(block: Answer) -> bool:
    state = block.get("CidrBlockState") or {}
    return bool(state.get("State", "associated") == "associated")


def security_group(row: Answer) -> SecurityGroup:
    return SecurityGroup(id=str(row["GroupId"]), vpc_id=str(row.get("VpcId") or ""), tags=tags(row.get("Tags")))


def limits(row: Answer) -> Limits:
    network = row["NetworkInfo"]
    return Limits(
        instance_type=str(row["InstanceType"]),
        interfaces=int(network["MaximumNetworkInterfaces"]),
        ipv4_per_interface=int(network["Ipv4AddressesPerInterface"]),
        ipv6_per_interface=int(network.get("Ipv6AddressesPerInterface") or 0),
        prefixes=row.get("Hypervisor") == "nitro" or bool(row.get("BareMetal")),
        network_cards=int(network.get("MaximumNetworkCards") or 1),
        card_interfaces=_cards(network.get("NetworkCards") or ()),
    )


def _cards(rows: Iterable[Answer]) -> tuple[int, ...]:
    """Interfaces by card; empty for the one card that nearly all types have."""
    held = {int(row["NetworkCardIndex"]): int(row["MaximumNetworkInterfaces"]) for row in rows}
    return tuple(held.get(card, 0) for card in range(max(held) + 1)) if len(held) > 1 else ()
