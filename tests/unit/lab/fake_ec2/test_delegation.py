"""Prefixes of both families, Elastic IPs, and interfaces of other kinds, as EC2 has them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.launch import make_cloud
from lab.fake_ec2.seed import Seed

SEED = Seed.model_validate({"vpc": [{"ipv6": True, "subnets": [{"zone": "a", "cidr": "10.0.0.0/20"}]}]})


@pytest.fixture
def cloud() -> Cloud:
    return make_cloud(SEED, 1)


def call(cloud: Cloud, action: str, **parameters: Any) -> Any:
    return ACTIONS[action].perform(cloud, parameters)


def create(cloud: Cloud, **parameters: Any) -> Any:
    subnet = next(iter(cloud.subnets.current))
    return call(cloud, "CreateNetworkInterface", SubnetId=subnet, **parameters)["NetworkInterface"]


def launch(cloud: Cloud, kind: str = "m5.large") -> str:
    answer = call(cloud, "RunInstances", ImageId="ami-1", MinCount=1, MaxCount=1, InstanceType=kind)
    return str(answer["Instances"][0]["InstanceId"])


def refused(cloud: Cloud, action: str, **parameters: Any) -> str:
    with pytest.raises(ApiError) as error:
        call(cloud, action, **parameters)
    return error.value.code


class TestIpv6Prefixes:
    def test_single_addresses_never_lie_in_a_prefix(self, cloud: Cloud) -> None:
        made = create(cloud, Ipv6PrefixCount=2)
        blocks = [ipaddress.IPv6Network(each["Ipv6Prefix"]) for each in made["Ipv6Prefixes"]]
        assert [each.prefixlen for each in blocks] == [80, 80]
        inside = str(blocks[0][7])
        eni = create(cloud)["NetworkInterfaceId"]
        assert refused(cloud, "AssignIpv6Addresses", NetworkInterfaceId=eni, Ipv6Addresses=[inside]) == (
            "InvalidIPAddress.InUse"
        )
        call(cloud, "DeleteNetworkInterface", NetworkInterfaceId=made["NetworkInterfaceId"])
        call(cloud, "AssignIpv6Addresses", NetworkInterfaceId=eni, Ipv6Addresses=[inside])
        assert refused(cloud, "AssignIpv6Addresses", NetworkInterfaceId=eni, Ipv6Prefixes=[str(blocks[0])]) == (
            "InvalidIPAddress.InUse"
        )

    def test_they_fill_slots_of_the_type_and_xen_takes_none(self, cloud: Cloud) -> None:
        for kind, code in (("m5.large", "PrivateIpAddressLimitExceeded"), ("m4.large", "UnsupportedOperation")):
            made = create(cloud, Ipv6PrefixCount=11)["NetworkInterfaceId"]
            asked = {"NetworkInterfaceId": made, "InstanceId": launch(cloud, kind), "DeviceIndex": 1}
            if kind == "m4.large":
                prefixes = [each["Ipv6Prefix"] for each in _described(cloud, made)["Ipv6Prefixes"]]
                call(cloud, "UnassignIpv6Addresses", NetworkInterfaceId=made, Ipv6Prefixes=prefixes[1:])
            assert refused(cloud, "AttachNetworkInterface", **asked) == code


def _described(cloud: Cloud, interface_id: str) -> Any:
    from lab.fake_ec2.actions import describe

    return describe.interface(cloud, cloud.interfaces.current[interface_id])


class TestElasticIps:
    def test_one_is_associated_once_and_only_taken_away_on_purpose(self, cloud: Cloud) -> None:
        public = call(cloud, "AllocateAddress")["AllocationId"]
        mine, theirs = create(cloud)["NetworkInterfaceId"], create(cloud)["NetworkInterfaceId"]
        first = call(cloud, "AssociateAddress", AllocationId=public, NetworkInterfaceId=mine)
        assert call(cloud, "AssociateAddress", AllocationId=public, NetworkInterfaceId=mine) == first
        asked = {"AllocationId": public, "NetworkInterfaceId": theirs}
        assert refused(cloud, "AssociateAddress", **asked) == "Resource.AlreadyAssociated"
        call(cloud, "AssociateAddress", AllowReassociation=True, **asked)
        assert _described(cloud, mine)["Association"] is None
        assert _described(cloud, theirs)["Association"]["AllocationId"] == public

    def test_it_is_free_again_when_its_interface_is_gone(self, cloud: Cloud) -> None:
        public = call(cloud, "AllocateAddress")["AllocationId"]
        eni = create(cloud)["NetworkInterfaceId"]
        call(cloud, "AssociateAddress", AllocationId=public, NetworkInterfaceId=eni)
        assert refused(cloud, "ReleaseAddress", AllocationId=public) == "InvalidIPAddress.InUse"
        call(cloud, "DeleteNetworkInterface", NetworkInterfaceId=eni)
        (told,) = call(cloud, "DescribeAddresses")["Addresses"]
        assert told["NetworkInterfaceId"] is None
        call(cloud, "ReleaseAddress", AllocationId=public)
        assert call(cloud, "DescribeAddresses")["Addresses"] == []

    def test_tags_find_it(self, cloud: Cloud) -> None:
        public = call(cloud, "AllocateAddress")["AllocationId"]
        call(cloud, "AllocateAddress")
        call(cloud, "CreateTags", Resources=[public], Tags=[{"Key": "pool", "Value": "egress"}])
        filters = [{"Name": "tag:pool", "Values": ["egress"]}]
        assert [each["AllocationId"] for each in call(cloud, "DescribeAddresses", Filters=filters)["Addresses"]] == [
            public
        ]


class TestKinds:
    def test_an_instance_has_one_trunk_and_xen_none(self, cloud: Cloud) -> None:
        one, two = (create(cloud, InterfaceType="trunk")["NetworkInterfaceId"] for _ in range(2))
        instance = launch(cloud)
        call(cloud, "AttachNetworkInterface", NetworkInterfaceId=one, InstanceId=instance, DeviceIndex=1)
        asked = {"NetworkInterfaceId": two, "DeviceIndex": 2}
        assert refused(cloud, "AttachNetworkInterface", InstanceId=instance, **asked) == "AttachmentLimitExceeded"
        xen = launch(cloud, "m4.large")
        asked["DeviceIndex"] = 1
        assert refused(cloud, "AttachNetworkInterface", InstanceId=xen, **asked) == "UnsupportedOperation"

    def test_what_nobody_knows_is_refused(self, cloud: Cloud) -> None:
        subnet = next(iter(cloud.subnets.current))
        assert refused(cloud, "CreateNetworkInterface", SubnetId=subnet, InterfaceType="tunnel") == (
            "InvalidParameterValue"
        )
