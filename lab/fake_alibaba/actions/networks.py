"""VPCs, vSwitches, security groups."""

from __future__ import annotations

import ipaddress

from lab.fake_alibaba.actions import describe
from lab.fake_alibaba.actions.registry import VPC, Answer, Parameters, action
from lab.fake_alibaba.actions.tags import has
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError, invalid
from lab.fake_alibaba.pages import numbered, page
from lab.fake_alibaba.parameters import json_texts, tags, text
from lab.fake_alibaba.records import SecurityGroup, Vpc, VSwitch


def _network(parameters: Parameters, shortest: int, longest: int) -> ipaddress.IPv4Network:
    cidr = text(parameters, "CidrBlock")
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise invalid("CidrBlock", cidr, str(error)) from None
    if not shortest <= network.prefixlen <= longest:
        raise invalid("CidrBlock", cidr, f"Its length must be between {shortest} and {longest}.")
    return network


@action("CreateVpc", VPC)
def create_vpc(cloud: Cloud, parameters: Parameters) -> Answer:
    network = _network(parameters, 8, 28)
    record = Vpc(cloud.new_number(), cloud.new_id("vpc"), str(network), parameters.get("VpcName", ""), tags(parameters))
    cloud.vpcs.put(record)
    cloud.changed()
    return {"VpcId": record.id}


@action("DescribeVpcs", VPC)
def describe_vpcs(cloud: Cloud, parameters: Parameters) -> Answer:
    wanted = parameters.get("VpcId", "").split(",") if parameters.get("VpcId") else None
    records = [each for each in cloud.vpcs.readable() if (not wanted or each.id in wanted) and has(each, parameters)]
    found, told = numbered(records, parameters, largest=50)
    return {"Vpcs": {"Vpc": [describe.vpc(cloud, each) for each in found]}, **told}


@action("CreateVSwitch", VPC)
def create_vswitch(cloud: Cloud, parameters: Parameters) -> Answer:
    vpc = cloud.find(cloud.vpcs, text(parameters, "VpcId"))
    zone = text(parameters, "ZoneId")
    network = _network(parameters, 16, 29)
    if not network.subnet_of(ipaddress.IPv4Network(vpc.cidr)):
        raise ApiError("InvalidCidrBlock", "Specified CIDR block is not within the CIDR block of the VPC.")
    for each in cloud.vswitches.current.values():
        if each.vpc_id == vpc.id and network.overlaps(ipaddress.IPv4Network(each.cidr)):
            raise ApiError("InvalidCidrBlock.Overlapped", f"Specified CIDR block overlaps with that of {each.id}.")
    record = VSwitch(
        cloud.new_number(), cloud.new_id("vsw"), vpc.id, str(network), zone, parameters.get("VSwitchName", ""),
        tags(parameters),
    )  # fmt: skip
    cloud.add_vswitch(record)
    return {"VSwitchId": record.id}


@action("DescribeVSwitches", VPC)
def describe_vswitches(cloud: Cloud, parameters: Parameters) -> Answer:
    wanted = {"id": parameters.get("VSwitchId"), "vpc_id": parameters.get("VpcId"), "zone": parameters.get("ZoneId")}
    records = [
        each
        for each in cloud.vswitches.readable()
        if all(not value or getattr(each, name) == value for name, value in wanted.items()) and has(each, parameters)
    ]
    found, told = numbered(records, parameters, largest=50)
    return {"VSwitches": {"VSwitch": [describe.vswitch(cloud, each) for each in found]}, **told}


@action("CreateSecurityGroup")
def create_security_group(cloud: Cloud, parameters: Parameters) -> Answer:
    vpc = cloud.find(cloud.vpcs, text(parameters, "VpcId"))
    record = SecurityGroup(
        cloud.new_number(), cloud.new_id("sg"), vpc.id, parameters.get("SecurityGroupName", ""),
        parameters.get("Description", ""), tags(parameters),
    )  # fmt: skip
    cloud.groups.put(record)
    cloud.changed()
    return {"SecurityGroupId": record.id}


@action("DescribeSecurityGroups")
def describe_security_groups(cloud: Cloud, parameters: Parameters) -> Answer:
    ids, vpc_id = json_texts(parameters, "SecurityGroupIds"), parameters.get("VpcId")
    records = [
        each
        for each in cloud.groups.readable()
        if (not ids or each.id in ids) and (not vpc_id or each.vpc_id == vpc_id) and has(each, parameters)
    ]
    found, told = page(records, "DescribeSecurityGroups", parameters, largest=100)
    return {"SecurityGroups": {"SecurityGroup": [describe.security_group(each) for each in found]}, **told}
