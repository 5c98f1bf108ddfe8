"""Whatever the cloud answers, what comes out is a fact or a CloudError."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.errors import CloudError, Unavailable
from ipam.providers.aws import AwsProvider

INTERFACE = {
    "NetworkInterfaceId": "eni-01234567",
    "MacAddress": "02:00:00:00:00:01",
    "SubnetId": "subnet-01234567",
    "VpcId": "vpc-01234567",
    "AvailabilityZone": "eu-central-1a",
    "Status": "in-use",
    "PrivateIpAddress": "10.0.0.5",
    "PrivateIpAddresses": [
        {"PrivateIpAddress": "10.0.0.5", "Primary": True},
        {"PrivateIpAddress": "10.0.0.6", "Primary": False},
    ],
    "Attachment": {
        "AttachmentId": "eni-attach-1",
        "InstanceId": "i-01234567",
        "DeviceIndex": 1,
        "Status": "attached",
        "AttachTime": datetime(2026, 1, 1, tzinfo=UTC),
    },
    "Groups": [{"GroupId": "sg-01234567"}],
    "TagSet": [{"Key": "a", "Value": "b"}],
}
INSTANCE = {
    "InstanceId": "i-01234567",
    "InstanceType": "m5.large",
    "Placement": {"AvailabilityZone": "eu-central-1a"},
    "State": {"Name": "running"},
    "VpcId": "vpc-01234567",
    "SecurityGroups": [{"GroupId": "sg-01234567"}],
}
ANSWERS: dict[str, Any] = {
    "describe_instances": {"Reservations": [{"Instances": [INSTANCE]}]},
    "describe_network_interfaces": {"NetworkInterfaces": [INTERFACE]},
    "describe_vpcs": {"Vpcs": [{"VpcId": "vpc-01234567", "CidrBlock": "10.0.0.0/16", "CidrBlockAssociationSet": [
        {"CidrBlock": "10.1.0.0/16", "CidrBlockState": {"State": "associated"}},
        {"CidrBlock": "10.2.0.0/16", "CidrBlockState": {"State": "disassociating"}},
    ]}]},
    "describe_subnets": {"Subnets": [{"SubnetId": "subnet-01234567", "VpcId": "vpc-01234567",
        "CidrBlock": "10.0.0.0/24", "AvailabilityZone": "eu-central-1a", "AvailableIpAddressCount": 250}]},
    "describe_security_groups": {"SecurityGroups": [{"GroupId": "sg-01234567", "VpcId": "vpc-01234567"}]},
    "describe_instance_types": {"InstanceTypes": [{"InstanceType": "m5.large", "Hypervisor": "nitro", "NetworkInfo": {
        "MaximumNetworkInterfaces": 3, "Ipv4AddressesPerInterface": 10}}]},
    "create_network_interface": {"NetworkInterface": INTERFACE},
    "attach_network_interface": {"AttachmentId": "eni-attach-1"},
    "assign_private_ip_addresses": {"AssignedPrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.9"}]},
}  # fmt: skip
CALLS: list[Callable[[AwsProvider], object]] = [
    lambda provider: provider.instance("i-01234567"),
    lambda provider: list(provider.inventory()),
    lambda provider: provider.subnets(),
    lambda provider: provider.security_groups(),
    lambda provider: provider.limits("m5.large"),
    lambda provider: provider.create_interface(
        subnet_id="subnet-01234567", security_group_ids=[], secondary_count=1, tags={}, description="", client_token=""
    ),
    lambda provider: provider.attach_interface(
        interface_id="eni-01234567", instance_id="i-01234567", device_index=1, network_card=0
    ),
    lambda provider: provider.assign_addresses(interface_id="eni-01234567", count=1),
]


class Sdk:
    """Answers as it is told."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **_: self._answers[name]


def provider_of(answers: dict[str, Any]) -> AwsProvider:
    provider = AwsProvider("123456789012", "eu-central-1", settle_timeout_s=0.0)
    provider._made = Sdk(answers)  # type: ignore[assignment]
    return provider


def test_a_good_answer_is_read() -> None:
    provider = provider_of(ANSWERS)
    instance = provider.instance("i-01234567")
    (interface,) = instance.interfaces
    assert (interface.addresses, interface.status, interface.tags) == (("10.0.0.6",), "in-use", {"a": "b"})
    assert interface.created_at == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert provider.subnets()[0].vpc_cidrs == ("10.0.0.0/16", "10.1.0.0/16")
    assert provider.limits("m5.large").prefixes


def test_an_interface_on_its_way_out_is_no_longer_the_instances() -> None:
    answers = copy.deepcopy(ANSWERS)
    answers["describe_network_interfaces"]["NetworkInterfaces"][0]["Attachment"]["Status"] = "detaching"
    assert provider_of(answers).instance("i-01234567").interfaces == ()


def test_subnets_and_interfaces_of_ipv6_alone_stop_nothing_and_carry_no_pods() -> None:
    answers = copy.deepcopy(ANSWERS)
    interfaces = answers["describe_network_interfaces"]["NetworkInterfaces"]
    alone = copy.deepcopy(interfaces[0]) | {"NetworkInterfaceId": "eni-6", "Ipv6Native": True, "PrivateIpAddresses": []}
    del alone["PrivateIpAddress"]
    alone["Ipv6Addresses"] = [{"Ipv6Address": "2001:db8::5"}]
    alone["Attachment"] |= {"DeviceIndex": 2}
    interfaces.append(alone)
    subnets = answers["describe_subnets"]["Subnets"]
    subnets.append({name: value for name, value in subnets[0].items() if name != "CidrBlock"} | {"Ipv6Native": True})
    provider = provider_of(answers)
    told = [(each.id, each.status, each.device_index) for each in provider.instance("i-01234567").interfaces]
    assert told == [("eni-01234567", "in-use", 1), ("eni-6", "excluded", 2)]
    assert len(provider.subnets()) == 1


def test_an_interface_that_a_service_manages_is_left_alone() -> None:
    answers = copy.deepcopy(ANSWERS)
    answers["describe_network_interfaces"]["NetworkInterfaces"][0]["Operator"] = {"Managed": True, "Principal": "eks"}
    (interface,) = provider_of(answers).instance("i-01234567").interfaces
    assert (interface.status, interface.addresses) == ("excluded", ())


@pytest.mark.parametrize("call", CALLS)
def test_an_empty_answer_is_no_empty_listing(call: Callable[[AwsProvider], object]) -> None:
    with pytest.raises(Unavailable) as refused:
        call(provider_of({name: {} for name in ANSWERS}))
    assert refused.value.code in ("MalformedAnswer", "NotSettled")


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
