"""The network that a cloud starts with: from a file, from flags, or a default one.

The file is TOML or JSON:

    account = "123456789012"
    region = "eu-central-1"
    [[vpc]]
    cidr = "10.0.0.0/16"
    tags = { Name = "main" }
    subnets = [{ zone = "a", cidr = "10.0.0.0/20", tags = { plimsoll = "pods" } }]
    security_groups = [{ name = "nodes", tags = { role = "node" } }]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field

from lab.fake_cloud import seed as base
from lab.fake_cloud.seed import BadSeed, Strict, SubnetSeed, default_subnets
from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError

DEFAULT_ACCOUNT: Final = "123456789012"
DEFAULT_REGION: Final = "eu-central-1"


class VpcSeed(base.VpcSeed):
    ipv6: bool = False


class Seed(Strict):
    account: str = DEFAULT_ACCOUNT
    region: str = DEFAULT_REGION
    vpc: list[VpcSeed] = Field(default_factory=list)


def default_vpc(cidr: str = "10.0.0.0/16", subnets: Sequence[SubnetSeed] = ()) -> VpcSeed:
    return VpcSeed(cidr=cidr, subnets=default_subnets(cidr, subnets))


def plant(cloud: Cloud, seed: Seed) -> None:
    """Makes the seed's network by the same calls that a client makes. Raises BadSeed."""
    for number, vpc in enumerate(seed.vpc or [default_vpc()]):
        try:
            _plant_vpc(cloud, vpc, is_default=number == 0)
        except ApiError as error:
            raise BadSeed(f"vpc {vpc.cidr}: {error.message}") from None


def _plant_vpc(cloud: Cloud, seed: VpcSeed, *, is_default: bool) -> None:
    made = _call(cloud, "CreateVpc", "vpc", seed.tags, CidrBlock=seed.cidr, AmazonProvidedIpv6CidrBlock=seed.ipv6)
    vpc_id = made["Vpc"]["VpcId"]
    record = cloud.vpcs.current[vpc_id]
    if is_default:
        # Instances launched without a subnet go to the first subnet of the first VPC.
        cloud.mark_default(record)
    for number, subnet in enumerate(seed.subnets):
        zone = subnet.zone if subnet.zone.startswith(cloud.region) else f"{cloud.region}{subnet.zone}"
        block = {"Ipv6CidrBlock": record.ipv6_cidr.replace("00::/56", f"{number:02x}::/64")} if seed.ipv6 else {}
        _call(cloud, "CreateSubnet", "subnet", subnet.tags, VpcId=vpc_id, CidrBlock=subnet.cidr,
              AvailabilityZone=zone, **block)  # fmt: skip
    for group in seed.security_groups:
        _call(cloud, "CreateSecurityGroup", "security-group", group.tags, VpcId=vpc_id, GroupName=group.name,
              Description=group.description)  # fmt: skip


def _call(cloud: Cloud, action: str, resource: str, tags: dict[str, str], **parameters: Any) -> Any:
    rows = [{"Key": key, "Value": value} for key, value in tags.items()]
    specification = [{"ResourceType": resource, "Tags": rows}] if rows else []
    return ACTIONS[action].perform(cloud, {**parameters, "TagSpecifications": specification})
