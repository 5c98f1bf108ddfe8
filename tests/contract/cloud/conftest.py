"""Clouds that the same suite runs on: the fake in memory, the fake clouds over HTTP, and moto's server over HTTP.

Each gives two subnets of one zone: a roomy one and one with `small_free` free addresses. moto knows no limits, no
exhaustion, no pages and no client tokens; what it does not do truthfully is asked of the others only (`strict_cloud`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ipam.model import PublicAddress, SecurityGroup, Subnet
from ipam.ports import Capabilities, CloudProvider
from ipam.providers.alibaba import AlibabaProvider
from ipam.providers.aws import AwsProvider, Scope
from ipam.providers.azure import AzureProvider
from ipam.testing import AWS_LIKE, FakeCloud
from lab.fake_alibaba import actions as alibaba_actions
from lab.fake_alibaba import seed as alibaba_seed
from lab.fake_alibaba import testing as alibaba_testing
from lab.fake_azure import launch as azure_launch
from lab.fake_azure import machines as azure_machines
from lab.fake_azure import testing as azure_testing
from lab.fake_azure.writes import put_public_address
from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.seed import Seed
from lab.fake_ec2.testing import Running, running

ACCOUNT, REGION = "123456789012", "eu-central-1"
ALIBABA_ACCOUNT = "1234567890123456"
NETWORK: dict[str, object] = {
    "subnets": [
        {"zone": "a", "cidr": "10.0.0.0/20", "tags": {"size": "large"}},
        {"zone": "a", "cidr": "10.0.16.0/28", "tags": {"size": "small"}},
    ],
    "security_groups": [{"name": "nodes", "tags": {"role": "node"}}, {"name": "pods"}],
}
SEED = Seed.model_validate({"vpc": [{**NETWORK, "ipv6": True}]})
ALIBABA_SEED = alibaba_seed.Seed.model_validate({"vpc": [NETWORK]})
AZURE_SEED = azure_launch.Seed(
    subnets={"large": "10.0.0.0/20", "small": "10.0.16.0/28"},
    security_groups=("nodes", "pods"),
    public_prefixes={"public": "192.0.2.0/29"},
)


@dataclass
class Site:
    """A cloud with its provider, and what its owner may do past the provider.

    :ivar instance_type: holds `slots` interfaces of `slots_each` IPv4 addresses each.
    :ivar plain_type: takes no prefixes; empty: all do.
    :ivar launch_in: launches an instance whose first interface is in that subnet; where interfaces cannot be created.
    :ivar small_free: free addresses of the small subnet.
    :ivar numbers_devices: the cloud lets its users choose a device index.
    """

    provider: CloudProvider
    subnet_id: str
    small_subnet_id: str
    group_id: str
    launch: Callable[[str], str]
    terminate: Callable[[str], object]
    unknown: Callable[[str], str] = lambda kind: f"{kind}-0123456789abcdef0"
    instance_type: str = "m5.large"
    plain_type: str = "m4.large"  # takes no prefixes
    unknown_type: str = "m5.gigantic"
    unknown_instance_code: str = "InvalidInstanceID.NotFound"
    small_free: int = 11
    slots: int = 3
    slots_each: int = 10
    launch_in: Callable[[str], str] = lambda _: ""
    numbers_devices: bool = True
    other_group_id: str = ""
    add_public_address: Callable[[dict[str, str]], str] = lambda _: ""
    takes_single_public_addresses: bool = True


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
def alibaba_credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # The SDK reads the environment when it is imported, and who imports it first is not known here.
        auth = importlib.import_module("alibabacloud_credentials.utils.auth_util")
        patch.setattr(auth, "environment_access_key_id", "test")
        patch.setattr(auth, "environment_access_key_secret", "test")
        patch.setattr(auth, "environment_ecs_metadata_disabled", "true")
        yield


@pytest.fixture(scope="session")
def alibaba_server() -> Iterator[alibaba_testing.Running]:
    with alibaba_testing.running(ALIBABA_SEED) as server:
        yield server


@pytest.fixture
def alibaba(alibaba_server: alibaba_testing.Running) -> alibaba_testing.Running:
    """The fake Alibaba Cloud, as new."""
    alibaba_server.reset()
    return alibaba_server


@pytest.fixture(scope="session")
def alibaba_provider(alibaba_server: alibaba_testing.Running, alibaba_credentials: None) -> AlibabaProvider:
    return AlibabaProvider(ALIBABA_ACCOUNT, REGION, endpoint_url=alibaba_server.url)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[azure_testing.Running]:
    with azure_testing.running(AZURE_SEED) as server:
        yield server


@pytest.fixture
def azure(azure_server: azure_testing.Running) -> azure_testing.Running:
    """The fake ARM, as new."""
    azure_server.reset()
    return azure_server


@pytest.fixture(scope="session")
def azure_provider(azure_server: azure_testing.Running) -> AzureProvider:
    return AzureProvider(AZURE_SEED.subscription, AZURE_SEED.location, endpoint_url=azure_server.url)


@pytest.fixture(scope="session")
def moto_url(aws_credentials: None) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def fake_site(capabilities: Capabilities = AWS_LIKE) -> Site:
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
    cloud = FakeCloud(subnets=subnets, security_groups=groups, capabilities=capabilities)

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


def alibaba_site(alibaba: alibaba_testing.Running, provider: AlibabaProvider) -> Site:
    large, small = alibaba.do(lambda cloud: list(cloud.vswitches.current))
    group, other = alibaba.do(lambda cloud: list(cloud.groups.current))

    def do(action: str, **asked: object) -> dict[str, object]:
        return dict(alibaba.do(lambda cloud: alibaba_actions.ACTIONS[action].perform(cloud, asked)))

    def launch(type_: str) -> str:
        asked = {"ImageId": "m-1", "InstanceType": type_, "VSwitchId": large, "SecurityGroupIds": [group]}
        return str(do("RunInstances", **asked)["InstanceIdSets"]["InstanceIdSet"][0])  # type: ignore[index]

    def add_public_address(tags: dict[str, str]) -> str:
        rows = [{"Key": key, "Value": value} for key, value in tags.items()]
        return str(do("AllocateEipAddress", Tag=rows)["AllocationId"])

    return Site(
        provider, large, small, group, launch,
        lambda instance_id: do("DeleteInstance", InstanceId=instance_id, Force="true"),
        unknown=lambda kind: "vsw-bp1000000000000000000" if kind == "subnet" else f"{kind}-bp1000000000000000000",
        instance_type="ecs.g6.xlarge", plain_type="", unknown_type="ecs.g6.gigantic",
        unknown_instance_code="InvalidInstanceId.NotFound", small_free=12, numbers_devices=False,
        other_group_id=other, add_public_address=add_public_address,
    )  # fmt: skip


def azure_site(azure: azure_testing.Running, provider: AzureProvider, kind: str = "single") -> Site:
    """:param kind: of the virtual machines: single, flexible or uniform."""
    large, small = azure.do(lambda cloud: list(cloud.subnets))
    group, other = azure.do(lambda cloud: list(cloud.groups.current))

    def launch(size: str, subnet_id: str = large) -> str:
        asked = {"kind": kind, "subnet_id": subnet_id, "group_ids": [group]}
        return azure.do(lambda cloud: azure_machines.launch(cloud, size, **asked)).id  # type: ignore[arg-type]

    def unknown(what: str) -> str:
        kinds = {"eni": "Microsoft.Network/networkInterfaces", "i": "Microsoft.Compute/virtualMachines"}
        return f"/subscriptions/{AZURE_SEED.subscription}/resourceGroups/lab/providers/{kinds[what]}/nobody"

    def add_public_address(tags: dict[str, str]) -> str:
        def add(cloud: Any) -> str:
            prefix = next(iter(cloud.prefixes.current))
            name = f"public-{cloud.new_number()}"
            public_id = cloud.resource_id("Microsoft.Network", "publicIPAddresses", name)
            body = {"tags": tags, "properties": {"publicIPPrefix": {"id": prefix}}}
            return put_public_address(cloud, public_id, body).id

        return azure.do(add)

    return Site(
        provider, large, small, group, launch,
        lambda instance_id: azure.do(lambda cloud: cloud.remove_machine(instance_id)),
        unknown=unknown, instance_type="Standard_D8s_v5", plain_type="", unknown_type="Standard_Gigantic",
        unknown_instance_code="ResourceNotFound", slots=4, slots_each=256, other_group_id=other,
        add_public_address=add_public_address, launch_in=lambda subnet_id: launch("Standard_D8s_v5", subnet_id),
    )  # fmt: skip


def uniform_site(azure: azure_testing.Running, provider: AzureProvider) -> Site:
    site = azure_site(azure, provider, "uniform")
    site.takes_single_public_addresses = False  # of a prefix only; see test_azure.py
    return site


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
            ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=large,
            InstanceType=type_,  # type: ignore[arg-type]
        )  # fmt: skip
        return answer["Instances"][0]["InstanceId"]

    def terminate(instance_id: str) -> None:
        client.terminate_instances(InstanceIds=[instance_id])

    provider = AwsProvider(ACCOUNT, REGION, endpoint_url=url, scope=Scope(vpc_ids=[vpc]))
    return Site(provider, large, small, group, launch, terminate)


def _site(kind: str, request: pytest.FixtureRequest) -> Site:
    if kind == "memory":
        return fake_site()
    if kind == "memory-protects":
        return fake_site(replace(AWS_LIKE, protects_on_create=True))
    if kind == "moto":
        return moto_site(request.getfixturevalue("moto_url"))
    name, make = FAKES[kind]
    return make(request.getfixturevalue(name), request.getfixturevalue(f"{name}_provider"))


FAKES: dict[str, tuple[str, Callable[[Any, Any], Site]]] = {
    "fake-ec2": ("ec2", ec2_site),
    "fake-alibaba": ("alibaba", alibaba_site),
    "fake-azure": ("azure", azure_site),
    "fake-azure-uniform": ("azure", uniform_site),
}


@pytest.fixture(params=["memory", *FAKES, "moto"])
def any_cloud(request: pytest.FixtureRequest) -> Site:
    return _site(request.param, request)


@pytest.fixture(params=["memory", "memory-protects", *FAKES])
def strict_cloud(request: pytest.FixtureRequest) -> Site:
    return _site(request.param, request)


@pytest.fixture
def ec2_cloud(ec2: Running, ec2_provider: AwsProvider) -> Site:
    return ec2_site(ec2, ec2_provider)


@pytest.fixture
def alibaba_cloud(alibaba: alibaba_testing.Running, alibaba_provider: AlibabaProvider) -> Site:
    return alibaba_site(alibaba, alibaba_provider)


@pytest.fixture(params=["single", "flexible", "uniform"])
def azure_cloud(azure: azure_testing.Running, azure_provider: AzureProvider, request: pytest.FixtureRequest) -> Site:
    return azure_site(azure, azure_provider, request.param)


@pytest.fixture
def fresh_memory() -> Callable[[], Site]:
    """Makes the cloud in memory as new, as often as it is called: the one that is fast enough for everything."""
    return fake_site


@pytest.fixture(params=["memory", *FAKES])
def fresh_cloud(request: pytest.FixtureRequest) -> Callable[[], Site]:
    """Makes the same cloud as new, as often as it is called."""
    if request.param == "memory":
        return fake_site
    name, site = FAKES[request.param]
    server, provider = request.getfixturevalue(f"{name}_server"), request.getfixturevalue(f"{name}_provider")

    def make() -> Site:
        server.reset()
        return site(server, provider)

    return make
