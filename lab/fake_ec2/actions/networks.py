"""VPCs, subnets, security groups and route tables."""

from __future__ import annotations

import ipaddress
from typing import Any

from lab.fake_ec2.actions import describe
from lab.fake_ec2.actions.registry import Answer, Parameters, action
from lab.fake_ec2.actions.tags import specified, told
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError, invalid, missing
from lab.fake_ec2.filters import keep
from lab.fake_ec2.pages import page
from lab.fake_ec2.records import RouteTable, SecurityGroup, Subnet, Vpc

_VPC_FACTS: dict[str, Any] = {
    "vpc-id": lambda vpc: vpc.id,
    "cidr": lambda vpc: vpc.cidr,
    "cidr-block-association.cidr-block": lambda vpc: vpc.cidr,
    "is-default": lambda vpc: str(vpc.is_default).lower(),
    "state": lambda _: "available",
    "tags": lambda vpc: vpc.tags,
}
_SUBNET_FACTS: dict[str, Any] = {
    "subnet-id": lambda subnet: subnet.id,
    "vpc-id": lambda subnet: subnet.vpc_id,
    "availability-zone": lambda subnet: subnet.zone,
    "cidr-block": lambda subnet: subnet.cidr,
    "state": lambda _: "available",
    "tags": lambda subnet: subnet.tags,
}
_GROUP_FACTS: dict[str, Any] = {
    "group-id": lambda group: group.id,
    "group-name": lambda group: group.name,
    "vpc-id": lambda group: group.vpc_id,
    "description": lambda group: group.description,
    "tags": lambda group: group.tags,
}
_ROUTE_FACTS: dict[str, Any] = {
    "route-table-id": lambda table: table.id,
    "vpc-id": lambda table: table.vpc_id,
    "association.main": lambda _: "true",
    "tags": lambda table: table.tags,
}


def network(text: str, parameter: str) -> ipaddress.IPv4Network:
    """A VPC's or subnet's CIDR: aligned, between /16 and /28. Raises ApiError."""
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError:
        raise invalid(text, parameter, "This is not a valid CIDR block.") from None
    if not 16 <= found.prefixlen <= 28:
        code = "InvalidVpc.Range" if parameter == "vpcCidrBlock" else "InvalidSubnet.Range"
        raise ApiError(code, f"The CIDR '{text}' is invalid.")
    return found


@action("CreateVpc")
def create_vpc(cloud: Cloud, parameters: Parameters) -> Answer:
    if not parameters.get("CidrBlock"):
        raise missing("CidrBlock")
    cidr = str(network(parameters["CidrBlock"], "vpcCidrBlock"))
    tags = specified(parameters, "vpc")["vpc"]
    number, table_id = cloud.new_number(), cloud.new_id("rtb")
    # Documentation's range (RFC 3849), a /56 for each VPC.
    ipv6 = f"2001:db8:{number >> 8 & 0xFFFF:x}:{(number & 0xFF) << 8:x}::/56"
    requested = parameters.get("AmazonProvidedIpv6CidrBlock", False)
    record = Vpc(number, cloud.new_id("vpc"), cidr, ipv6 if requested else "", False, table_id, tags)
    cloud.vpcs.put(record)
    cloud.route_tables.put(RouteTable(cloud.new_number(), table_id, record.id, cidr))
    add_group(cloud, record.id, "default", "default VPC security group", {})
    cloud.changed()
    return {"Vpc": describe.vpc(cloud, record)}


@action("DescribeVpcs")
def describe_vpcs(cloud: Cloud, parameters: Parameters) -> Answer:
    records = keep(cloud.read(cloud.vpcs, parameters.get("VpcIds")), parameters.get("Filters"), _VPC_FACTS)
    found, token = page(records, "DescribeVpcs", parameters, ids="VpcIds")
    return {"NextToken": token, "Vpcs": [describe.vpc(cloud, each) for each in found]}


@action("CreateSubnet")
def create_subnet(cloud: Cloud, parameters: Parameters) -> Answer:
    vpc = cloud.find(cloud.vpcs, parameters["VpcId"])
    if not parameters.get("CidrBlock"):
        raise missing("CidrBlock")
    block = network(parameters["CidrBlock"], "subnetCidrBlock")
    if not block.subnet_of(ipaddress.IPv4Network(vpc.cidr)):
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{block}' is invalid.")
    siblings = [each for each in cloud.subnets.current.values() if each.vpc_id == vpc.id]
    if any(block.overlaps(ipaddress.IPv4Network(each.cidr)) for each in siblings):
        raise ApiError("InvalidSubnet.Conflict", f"The CIDR '{block}' conflicts with another subnet")
    zone = parameters.get("AvailabilityZone") or f"{cloud.region}a"
    if not zone.startswith(cloud.region) or len(zone) != len(cloud.region) + 1:
        raise invalid(zone, "availabilityZone", f"Subnets can only be created in zones of {cloud.region}.")
    ipv6 = _ipv6_block(parameters.get("Ipv6CidrBlock", ""), vpc)
    tags = specified(parameters, "subnet")["subnet"]
    record = Subnet(cloud.new_number(), cloud.new_id("subnet"), vpc.id, str(block), zone, ipv6, tags)
    cloud.add_subnet(record)
    cloud.changed()
    return {"Subnet": describe.subnet(cloud, record)}


def _ipv6_block(text: str, vpc: Vpc) -> str:
    if not text:
        return ""
    try:
        block = ipaddress.IPv6Network(text)
        inside = vpc.ipv6_cidr and block.prefixlen == 64 and block.subnet_of(ipaddress.IPv6Network(vpc.ipv6_cidr))
    except ValueError:
        inside = False
    if not inside:
        raise ApiError("InvalidSubnet.Range", f"The CIDR '{text}' is invalid.")
    return text


@action("DescribeSubnets")
def describe_subnets(cloud: Cloud, parameters: Parameters) -> Answer:
    facts = {**_SUBNET_FACTS, "available-ip-address-count": lambda subnet: str(cloud.spaces[subnet.id].free)}
    records = keep(cloud.read(cloud.subnets, parameters.get("SubnetIds")), parameters.get("Filters"), facts)
    found, token = page(records, "DescribeSubnets", parameters, ids="SubnetIds")
    return {"NextToken": token, "Subnets": [describe.subnet(cloud, each) for each in found]}


@action("CreateSecurityGroup")
def create_security_group(cloud: Cloud, parameters: Parameters) -> Answer:
    name = parameters["GroupName"]
    if not parameters.get("VpcId"):
        raise missing("VpcId")
    vpc = cloud.find(cloud.vpcs, parameters["VpcId"])
    if any(each.vpc_id == vpc.id and each.name == name for each in cloud.groups.current.values()):
        raise ApiError("InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc.id}'")
    tags = specified(parameters, "security-group")["security-group"]
    group = add_group(cloud, vpc.id, name, parameters["Description"], tags)
    cloud.changed()
    told_arn = describe.arn(cloud, "security-group", group.id)
    return {"GroupId": group.id, "Tags": told(tags), "SecurityGroupArn": told_arn}


def add_group(cloud: Cloud, vpc_id: str, name: str, description: str, tags: dict[str, str]) -> SecurityGroup:
    group = SecurityGroup(cloud.new_number(), cloud.new_id("sg"), vpc_id, name, description, tags)
    cloud.groups.put(group)
    return group


@action("DescribeSecurityGroups")
def describe_security_groups(cloud: Cloud, parameters: Parameters) -> Answer:
    records = cloud.read(cloud.groups, parameters.get("GroupIds"))
    if names := parameters.get("GroupNames"):
        records = [each for each in records if each.name in names]
    kept = keep(records, parameters.get("Filters"), _GROUP_FACTS)
    found, token = page(kept, "DescribeSecurityGroups", parameters, ids="GroupIds")
    return {"NextToken": token, "SecurityGroups": [describe.security_group(cloud, each) for each in found]}


@action("DescribeRouteTables")
def describe_route_tables(cloud: Cloud, parameters: Parameters) -> Answer:
    records = cloud.read(cloud.route_tables, parameters.get("RouteTableIds"))
    kept = keep(records, parameters.get("Filters"), _ROUTE_FACTS)
    found, token = page(kept, "DescribeRouteTables", parameters, ids="RouteTableIds")
    return {"RouteTables": [_route_table(cloud, each) for each in found], "NextToken": token}


def _route_table(cloud: Cloud, record: RouteTable) -> dict[str, Any]:
    """The main table of its VPC, with the route that every VPC has."""
    association = {
        "Main": True,
        "RouteTableAssociationId": f"rtbassoc-{record.id[4:]}",
        "RouteTableId": record.id,
        "AssociationState": {"State": "associated"},
    }
    local = {
        "DestinationCidrBlock": record.cidr,
        "GatewayId": "local",
        "Origin": "CreateRouteTable",
        "State": "active",
    }
    return {
        "RouteTableId": record.id,
        "VpcId": record.vpc_id,
        "OwnerId": cloud.account,
        "Associations": [association],
        "Routes": [local],
        "PropagatingVgws": [],
        "Tags": told(record.tags),
    }
