"""Clouds that the same suite runs on: the fake in memory, the fake EC2 over HTTP, and moto's server over HTTP.

Each gives two subnets of one zone: a roomy one and one with 11 free addresses. moto knows no limits, no exhaustion, no
pages and no client tokens; what it does not do truthfully is asked of the other two only (`strict_cloud`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ipam.model import PublicAddress, SecurityGroup, Subnet
from ipam.ports import CloudProvider
from ipam.providers.aws import AwsProvider, Scope
from ipam.testing import FakeCloud
from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.seed import Seed
from lab.fake_ec2.testing import Running, running

ACCOUNT, REGION = "123456789012", "eu-central-1"
SEED = Seed.model_validate(
    {
        "vpc": [
            {
                "subnets": [
                    {"zone": "a", "cidr": "10.0.0.0/20", "tags": {"size": "large"}},
                    {"zone": "a", "cidr": "10.0.16.0/28", "tags": {"size": "small"}},
                ],
                "security_groups": [{"name": "nodes", "tags": {"role": "node"}}, {"name": "pods"}],
                "ipv6": True,
            }
        ]
    }
)


@dataclass
class Site:
    """A cloud with its provider, and what its owner may do past the provider."""

    provider: CloudProvider
    subnet_id: str
    small_subnet_id: str
    group_id: str
    launch: Callable[[str], str]
    terminate: Callable[[str], None]
    unknown: Callable[[str], str] = lambda kind: f"{kind}-0123456789abcdef0"
    instance_type: str = "m5.large"
    plain_type: str = "m4.large"  # takes no prefixes
    other_group_id: str = ""
    add_public_address: Callable[[dict[str, str]], str] = lambda _: ""


@pytest.fixture(scope="session")
def aws_credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def ec2_server() -> Iterator[Running]:
    with running(SEED) as server:
        yield server


@pytest.fixture
def ec2(ec2_server: Running) -> Running:
    """The fake EC2, as new."""
    ec2_server.reset()
    return ec2_server


@pytest.fixture(scope="session")
def ec2_provider(ec2_server: Running, aws_credentials: None) -> AwsProvider:
    return AwsProvider(ACCOUNT, REGION, endpoint_url=ec2_server.url, settle_timeout_s=5.0)


@pytest.fixture(scope="session")
def moto_url(aws_credentials: None) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def fake_site() -> Site:
    subnets = (
        Subnet(
            "subnet-a", "10.0.0.0/20", "zone-a", "vpc-1", 0, {"size": "large"}, ("10.0.0.0/16",),
            ipv6_cidr="fd00:1:0:1::/64",
        ),
        Subnet(
            "subnet-b", "10.0.16.0/28", "zone-a", "vpc-1", 0, {"size": "small"}, ("10.0.0.0/16",),
            ipv6_cidr="fd00:1:0:2::/64",
        ),
    )  # fmt: skip
    groups = (SecurityGroup("sg-1", "vpc-1"), SecurityGroup("sg-2", "vpc-1"))
    cloud = FakeCloud(subnets=subnets, security_groups=groups)

    def add_public_address(tags: dict[str, str]) -> str:
        id = f"public-{len(cloud.public_addresses(tags={}))}"
        cloud.add_public_address(PublicAddress(id, "192.0.2.1", tags=tags))
        return id

    return Site(
        cloud, "subnet-a", "subnet-b", "sg-1", lambda type_: cloud.launch(type_, subnet_id="subnet-a").id,
        cloud.terminate, other_group_id="sg-2", add_public_address=add_public_address,
    )  # fmt: skip


def ec2_site(ec2: Running, provider: AwsProvider) -> Site:
    large, small = ec2.do(lambda cloud: list(cloud.subnets.current))
    group = ec2.do(lambda cloud: next(each.id for each in cloud.groups.current.values() if each.name == "nodes"))

    def launch(type_: str) -> str:
        asked = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1, "InstanceType": type_, "SubnetId": large}
        answer = ec2.do(lambda cloud: ACTIONS["RunInstances"].perform(cloud, asked))
        return str(answer["Instances"][0]["InstanceId"])

    def terminate(instance_id: str) -> None:
        ec2.do(lambda cloud: ACTIONS["TerminateInstances"].perform(cloud, {"InstanceIds": [instance_id]}))

    def add_public_address(tags: dict[str, str]) -> str:
        rows = [{"Key": key, "Value": value} for key, value in tags.items()]
        asked = {"TagSpecifications": [{"ResourceType": "elastic-ip", "Tags": rows}]}
        return str(ec2.do(lambda cloud: ACTIONS["AllocateAddress"].perform(cloud, asked))["AllocationId"])

    other = ec2.do(lambda cloud: next(each.id for each in cloud.groups.current.values() if each.name == "pods"))
    return Site(
        provider, large, small, group, launch, terminate, other_group_id=other, add_public_address=add_public_address
    )


def moto_site(url: str) -> Site:
    # A network of its own instead of a reset, which takes moto seconds.
    client = boto3.client("ec2", region_name=REGION, endpoint_url=url)
    vpc = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    large, small = (
        client.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
        for cidr in ("10.0.0.0/20", "10.0.16.0/28")
    )
    group = client.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]

    def launch(type_: str) -> str:
        answer = client.run_instances(
            ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType=type_, SubnetId=large
        )  # type: ignore[arg-type]
        return answer["Instances"][0]["InstanceId"]

    def terminate(instance_id: str) -> None:
        client.terminate_instances(InstanceIds=[instance_id])

    provider = AwsProvider(ACCOUNT, REGION, endpoint_url=url, scope=Scope(vpc_ids=[vpc]))
    return Site(provider, large, small, group, launch, terminate)


def _site(kind: str, request: pytest.FixtureRequest) -> Site:
    if kind == "memory":
        return fake_site()
    if kind == "moto":
        return moto_site(request.getfixturevalue("moto_url"))
    return ec2_site(request.getfixturevalue("ec2"), request.getfixturevalue("ec2_provider"))


@pytest.fixture(params=["memory", "fake-ec2", "moto"])
def any_cloud(request: pytest.FixtureRequest) -> Site:
    return _site(request.param, request)


@pytest.fixture(params=["memory", "fake-ec2"])
def strict_cloud(request: pytest.FixtureRequest) -> Site:
    return _site(request.param, request)


@pytest.fixture
def ec2_cloud(ec2: Running, ec2_provider: AwsProvider) -> Site:
    return ec2_site(ec2, ec2_provider)


@pytest.fixture
def fresh_memory() -> Callable[[], Site]:
    """Makes the cloud in memory as new, as often as it is called: the one that is fast enough for everything."""
    return fake_site


@pytest.fixture(params=["memory", "fake-ec2"])
def fresh_cloud(request: pytest.FixtureRequest) -> Callable[[], Site]:
    """Makes the same cloud as new, as often as it is called."""
    if request.param == "memory":
        return fake_site
    server, provider = request.getfixturevalue("ec2_server"), request.getfixturevalue("ec2_provider")

    def make() -> Site:
        server.reset()
        return ec2_site(server, provider)

    return make
