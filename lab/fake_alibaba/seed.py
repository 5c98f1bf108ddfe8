"""The network that a cloud starts with: from a file, from flags, or a default one.

The file is TOML or JSON:

    account = "1234567890123456"
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

from lab.fake_alibaba.actions import ACTIONS
from lab.fake_alibaba.cloud import Cloud
from lab.fake_alibaba.errors import ApiError
from lab.fake_cloud.seed import BadSeed, GroupSeed, Strict, SubnetSeed, VpcSeed, default_subnets

DEFAULT_ACCOUNT: Final = "1234567890123456"
DEFAULT_REGION: Final = "eu-central-1"


class Seed(Strict):
    account: str = DEFAULT_ACCOUNT
    region: str = DEFAULT_REGION
    vpc: list[VpcSeed] = Field(default_factory=list)


def default_vpc(cidr: str = "10.0.0.0/16", subnets: Sequence[SubnetSeed] = ()) -> VpcSeed:
    """Each VPC has a security group: an instance cannot be without one."""
    groups = [GroupSeed(name="default")]
    return VpcSeed(cidr=cidr, subnets=default_subnets(cidr, subnets), security_groups=groups)


def plant(cloud: Cloud, seed: Seed) -> None:
    """Makes the seed's network by the same calls that a client makes. Raises BadSeed."""
    for vpc in seed.vpc or [default_vpc()]:
        try:
            _plant_vpc(cloud, vpc)
        except ApiError as error:
            raise BadSeed(f"vpc {vpc.cidr}: {error.message}") from None


def _plant_vpc(cloud: Cloud, seed: VpcSeed) -> None:
    vpc_id = _call(cloud, "CreateVpc", seed.tags, CidrBlock=seed.cidr)["VpcId"]
    for subnet in seed.subnets:
        zone = subnet.zone if subnet.zone.startswith(cloud.region) else f"{cloud.region}{subnet.zone}"
        _call(cloud, "CreateVSwitch", subnet.tags, VpcId=vpc_id, CidrBlock=subnet.cidr, ZoneId=zone)
    for group in seed.security_groups:
        _call(
            cloud, "CreateSecurityGroup", group.tags, VpcId=vpc_id, SecurityGroupName=group.name,
            Description=group.description,
        )  # fmt: skip


def _call(cloud: Cloud, action: str, tags: dict[str, str], **parameters: Any) -> Any:
    rows = [{"Key": key, "Value": value} for key, value in tags.items()]
    return ACTIONS[action].perform(cloud, {**parameters, "Tag": rows})
