"""Whatever Alibaba Cloud answers, what comes out of the SDK and the provider is a fact or a CloudError."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.errors import CloudError, Denied, InProgress, Rejected, Throttled, Unavailable
from ipam.providers.alibaba import AlibabaProvider
from ipam.providers.alibaba_client import Client
from ipam.providers.alibaba_errors import translate

INTERFACE = {
    "NetworkInterfaceId": "eni-1",
    "MacAddress": "02:00:00:00:00:01",
    "VSwitchId": "vsw-1",
    "VpcId": "vpc-1",
    "ZoneId": "eu-central-1a",
    "Status": "InUse",
    "Type": "Secondary",
    "InstanceId": "i-1",
    "PrivateIpAddress": "10.0.0.5",
    "PrivateIpSets": {
        "PrivateIpSet": [
            {"PrivateIpAddress": "10.0.0.5", "Primary": True},
            {"PrivateIpAddress": "10.0.0.6", "Primary": False},
        ]
    },
    "Ipv4PrefixSets": {"Ipv4PrefixSet": [{"Ipv4Prefix": "10.0.0.16/28"}]},
    "SecurityGroupIds": {"SecurityGroupId": ["sg-1"]},
    "DeleteOnRelease": True,
    "CreationTime": "2026-01-01T00:00:00Z",
    "AssociatedPublicIp": {"AllocationId": "eip-1", "PublicIpAddress": "192.0.2.1"},
    "Tags": {"Tag": [{"TagKey": "a", "TagValue": "b"}]},
}
INSTANCE = {
    "InstanceId": "i-1",
    "InstanceType": "ecs.g6.xlarge",
    "ZoneId": "eu-central-1a",
    "Status": "Running",
    "VpcAttributes": {"VpcId": "vpc-1", "VSwitchId": "vsw-1"},
    "SecurityGroupIds": {"SecurityGroupId": ["sg-1"]},
}
ANSWERS: dict[str, Any] = {
    "DescribeInstances": {"Instances": {"Instance": [INSTANCE]}},
    "DescribeNetworkInterfaces": {"NetworkInterfaceSets": {"NetworkInterfaceSet": [INTERFACE]}},
    "DescribeVpcs": {"Vpcs": {"Vpc": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16",
        "SecondaryCidrBlocks": {"SecondaryCidrBlock": ["10.1.0.0/16"]}}]}},
    "DescribeVSwitches": {"VSwitches": {"VSwitch": [{"VSwitchId": "vsw-1", "VpcId": "vpc-1",
        "CidrBlock": "10.0.0.0/24", "ZoneId": "eu-central-1a", "AvailableIpAddressCount": 250,
        "Tags": {"Tag": [{"Key": "a", "Value": "b"}]}}]}},
    "DescribeSecurityGroups": {"SecurityGroups": {"SecurityGroup": [{"SecurityGroupId": "sg-1", "VpcId": "vpc-1"}]}},
    "DescribeInstanceTypes": {"InstanceTypes": {"InstanceType": [{"InstanceTypeId": "ecs.g6.xlarge",
        "EniQuantity": 3, "EniPrivateIpAddressQuantity": 10}]}},
    "DescribeEipAddresses": {"EipAddresses": {"EipAddress": [{"AllocationId": "eip-1", "IpAddress": "192.0.2.1",
        "InstanceId": "i-1", "InstanceType": "EcsInstance"}]}},
    "CreateNetworkInterface": INTERFACE,
    "AttachNetworkInterface": {},
    "AssignPrivateIpAddresses": {"AssignedPrivateIpAddressesSet": {"NetworkInterfaceId": "eni-1",
        "PrivateIpSet": {"PrivateIpAddress": ["10.0.0.9"]}, "Ipv4PrefixSet": {"Ipv4Prefixes": ["10.0.0.32/28"]}}},
}  # fmt: skip
CALLS: list[Callable[[AlibabaProvider], object]] = [
    lambda provider: provider.instance("i-1"),
    lambda provider: list(provider.inventory()),
    lambda provider: provider.subnets(),
    lambda provider: provider.security_groups(),
    lambda provider: provider.limits("ecs.g6.xlarge"),
    lambda provider: provider.public_addresses(tags={}),
    lambda provider: provider.create_interface(
        subnet_id="vsw-1", security_group_ids=[], secondary_count=1, tags={}, description="", client_token=""
    ),
    lambda provider: provider.attach_interface(interface_id="eni-1", instance_id="i-1", device_index=1, network_card=0),
    lambda provider: provider.assign_addresses(interface_id="eni-1", count=1),
    lambda provider: provider.assign_prefixes(interface_id="eni-1", count=1),
]


@functools.cache
def client() -> Client:
    return Client("eu-central-1", "test", None, connections=1, connect_timeout_s=1.0, read_timeout_s=1.0)


def provider_of(answers: dict[str, Any]) -> AlibabaProvider:
    """The SDK reads the answers, which come from nowhere."""

    def answer(parameters: SimpleNamespace, *_: object) -> dict[str, Any]:
        return {"body": answers[parameters.action], "headers": {}, "statusCode": 200}

    made = client()
    made._ecs.call_api = made._vpc.call_api = answer
    provider = AlibabaProvider("1234567890123456", "eu-central-1", settle_s=0.0)
    provider._made = made
    return provider


def test_a_good_answer_is_read() -> None:
    provider = provider_of(ANSWERS)
    (interface,) = provider.instance("i-1").interfaces
    assert (interface.addresses, interface.prefixes) == (("10.0.0.6",), ("10.0.0.16/28",))
    assert (interface.status, interface.tags, interface.created_at) == ("in-use", {"a": "b"}, 1767225600.0)
    assert (interface.public_address_id, interface.delete_on_termination) == ("eip-1", True)
    (subnet,) = provider.subnets()
    assert (subnet.vpc_cidrs, subnet.gateway) == (("10.0.0.0/16", "10.1.0.0/16"), "10.0.0.253")
    assert provider.limits("ecs.g6.xlarge").prefixes


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_answer_is_no_empty_listing(call: Callable[[AlibabaProvider], object]) -> None:
    with pytest.raises((Unavailable, InProgress)) as refused:
        call(provider_of({name: {} for name in ANSWERS}))
    assert refused.value.code in ("MalformedAnswer", "InProgress")


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(each for key, value in below for each in paths(value, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(
    where=st.sampled_from([each for each in paths(ANSWERS) if each]),
    what=st.sampled_from([None, "", "x", -1, [], {}, [None], {"x": 1}, 3.5, "10.0.0.300", "\x00"]),
    call=st.sampled_from(CALLS),
)
def test_any_part_of_an_answer_may_be_wrong(where: tuple[Any, ...], what: object, call: Callable[..., object]) -> None:
    answers = copy.deepcopy(ANSWERS)
    node = answers
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = what
    with contextlib.suppress(CloudError):
        call(provider_of(answers))


@pytest.mark.parametrize(
    ("status", "kind"), [(429, Throttled), (401, Denied), (400, Rejected), (404, Rejected), (500, Unavailable)]
)
def test_a_refusal_without_a_code_goes_by_its_status(status: int, kind: type[CloudError]) -> None:
    from alibabacloud_tea_openapi.exceptions import ClientException

    refusal = ClientException(status_code=status, code="None", message="nothing is said", data={})
    error = translate(refusal, "DescribeVpcs")
    assert type(error) is kind
    assert (error.code, error.operation) == (f"Http{status}", "DescribeVpcs")


@pytest.mark.parametrize(("told_ms", "waits_s"), [(2500, 2.5), (None, 1.0), (10**9, 60.0)])
def test_a_throttled_call_waits_as_long_as_the_cloud_says(told_ms: int | None, waits_s: float) -> None:
    from alibabacloud_tea_openapi.exceptions import ThrottlingException

    refusal = ThrottlingException(status_code=400, code="Throttling.User", message="too many", retry_after=told_ms)
    error = translate(refusal, "DescribeVpcs")
    assert isinstance(error, Throttled)
    assert error.retry_after_s == waits_s
