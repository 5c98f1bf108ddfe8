"""Rules of a VPC that the suite of providers does not reach: prefixes, IPv6, explicit addresses, launches, tags."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from lab.fake_ec2.limits import instance_types


def test_the_facts_of_some_types() -> None:
    types = instance_types()
    assert len(types) >= 60
    rows = [("m5.large", 3, 10), ("m4.large", 2, 10), ("m4.xlarge", 4, 15), ("t2.xlarge", 3, 15), ("m5.4xlarge", 8, 30)]
    assert [(name, types[name].interfaces, types[name].ipv4_per_interface) for name, *_ in rows] == rows
    assert not types["m4.large"].prefixes
    assert types["m5.metal"].prefixes
    assert sum(types["p4d.24xlarge"].network_cards) == types["p4d.24xlarge"].interfaces


class TestPrefixes:
    def test_a_prefix_is_a_whole_aligned_block_and_fills_one_slot(self, region: Any) -> None:
        interface_id = region.create(Ipv4PrefixCount=2)
        prefixes = [ipaddress.ip_network(each) for each in region.cloud.interfaces.current[interface_id].prefixes]
        assert [each.prefixlen for each in prefixes] == [28, 28]
        assert not prefixes[0].overlaps(prefixes[1])
        assert region.cloud.spaces[region.subnet_id].free == 251 - 1 - 32

    def test_one_address_in_each_block_leaves_no_prefix(self, region: Any, refused: Any) -> None:
        for block in range(1, 15):
            region.create(PrivateIpAddress=f"10.0.0.{block * 16 + 3}")
        with refused("InsufficientCidrBlocks"):
            region.create(Ipv4PrefixCount=1)  # block 0 and 15 hold reserved addresses
        assert region.cloud.spaces[region.subnet_id].free == 251 - 14

    def test_a_prefix_that_is_not_aligned_or_not_free_is_refused(self, region: Any, refused: Any) -> None:
        with refused("InvalidParameterValue"):
            region.create(Ipv4Prefixes=[{"Ipv4Prefix": "10.0.0.24/28"}])
        region.create(PrivateIpAddress="10.0.0.40")
        with refused("InvalidIPAddress.InUse"):
            region.create(Ipv4Prefixes=[{"Ipv4Prefix": "10.0.0.32/28"}])

    def test_xen_types_take_no_prefix(self, region: Any, refused: Any) -> None:
        instance_id, interface_id = region.launch("m4.large"), region.create()
        region.call("AttachNetworkInterface", NetworkInterfaceId=interface_id, InstanceId=instance_id, DeviceIndex=1)
        with refused("UnsupportedOperation"):
            region.call("AssignPrivateIpAddresses", NetworkInterfaceId=interface_id, Ipv4PrefixCount=1)

    def test_a_prefix_given_back_is_whole_again(self, region: Any) -> None:
        interface_id = region.create(Ipv4PrefixCount=1)
        (prefix,) = region.cloud.interfaces.current[interface_id].prefixes
        region.call("UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, Ipv4Prefixes=[prefix])
        region.create(Ipv4Prefixes=[{"Ipv4Prefix": prefix}])


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("10.0.0.3", "InvalidParameterValue"),
            ("10.0.0.255", "InvalidParameterValue"),
            ("10.0.9.9", "InvalidParameterValue"),
            ("nonsense", "InvalidParameterValue"),
            ("10.0.0.9", "InvalidIPAddress.InUse"),
        ],
    )
    def test_an_address_that_cannot_be_had(self, region: Any, refused: Any, address: str, code: str) -> None:
        region.create(PrivateIpAddress="10.0.0.9")
        with refused(code):
            region.create(PrivateIpAddress=address)

    def test_an_address_moves_when_the_caller_allows_it(self, region: Any, refused: Any) -> None:
        first = region.create(PrivateIpAddresses=[{"PrivateIpAddress": "10.0.0.50"}])
        second = region.create()
        asked = {"NetworkInterfaceId": second, "PrivateIpAddresses": ["10.0.0.50"]}
        with refused("InvalidIPAddress.InUse"):
            region.call("AssignPrivateIpAddresses", **asked)
        region.call("AssignPrivateIpAddresses", **asked, AllowReassignment=True)
        interfaces = region.cloud.interfaces.current
        assert "10.0.0.50" not in interfaces[first].addresses
        assert "10.0.0.50" in interfaces[second].addresses

    def test_the_primary_address_stays(self, region: Any, refused: Any) -> None:
        interface_id = region.create(PrivateIpAddress="10.0.0.9")
        with refused("InvalidParameterValue"):
            region.call("UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, PrivateIpAddresses=["10.0.0.9"])

    def test_ipv6_comes_and_goes(self, region: Any) -> None:
        interface_id = region.create(Ipv6AddressCount=1)
        answer = region.call("AssignIpv6Addresses", NetworkInterfaceId=interface_id, Ipv6AddressCount=2)
        got = answer["AssignedIpv6Addresses"]
        assert len(set(region.cloud.interfaces.current[interface_id].ipv6_addresses)) == 3
        region.call("UnassignIpv6Addresses", NetworkInterfaceId=interface_id, Ipv6Addresses=got)
        assert len(region.cloud.interfaces.current[interface_id].ipv6_addresses) == 1

    def test_a_count_and_a_list_exclude_each_other(self, region: Any, refused: Any) -> None:
        with refused("InvalidParameterCombination"):
            region.create(SecondaryPrivateIpAddressCount=1, PrivateIpAddresses=[{"PrivateIpAddress": "10.0.0.50"}])


class TestInstances:
    def test_a_launch_that_finds_no_room_leaves_nothing(self, region: Any, refused: Any) -> None:
        with refused("InsufficientFreeAddressesInSubnet"):
            region.launch(SubnetId=region.small_subnet_id, MinCount=12, MaxCount=12)
        assert not region.cloud.instances.current
        assert not region.cloud.interfaces.current

    def test_a_launch_takes_what_there_is_between_its_counts(self, region: Any) -> None:
        region.launch(SubnetId=region.small_subnet_id, MinCount=2, MaxCount=20)
        assert len(region.cloud.instances.current) == 11

    def test_a_launch_is_idempotent_by_token_and_refuses_another_under_it(self, region: Any, refused: Any) -> None:
        assert region.launch(ClientToken="t") == region.launch(ClientToken="t")
        with refused("IdempotentParameterMismatch"):
            region.launch("m5.xlarge", ClientToken="t")

    def test_it_boots_when_its_time_has_come(self, region: Any) -> None:
        region.cloud.faults.boot_s = 30
        instance_id = region.launch()
        assert region.cloud.instances.current[instance_id].state == "pending"
        region.now += 30
        region.cloud.settle()
        assert region.cloud.instances.current[instance_id].state == "running"

    def test_the_first_interface_cannot_be_detached(self, region: Any, refused: Any) -> None:
        (interface,) = region.cloud.interfaces_of(region.launch())
        with refused("OperationNotPermitted"):
            region.call("DetachNetworkInterface", AttachmentId=interface.attachment.id)

    def test_another_zone_is_too_far(self, region: Any, refused: Any) -> None:
        interface_id = region.create(SubnetId=region.small_subnet_id)
        with refused("InvalidParameterCombination"):
            region.call(
                "AttachNetworkInterface", NetworkInterfaceId=interface_id, InstanceId=region.launch(), DeviceIndex=1
            )

    def test_a_terminated_instance_is_told_of_for_a_while(self, region: Any, refused: Any) -> None:
        instance_id = region.launch()
        region.call("TerminateInstances", InstanceIds=[instance_id])
        told = region.call("DescribeInstances", InstanceIds=[instance_id])
        assert told["Reservations"][0]["Instances"][0]["State"]["Name"] == "terminated"
        region.now += 3600
        with refused("InvalidInstanceID.NotFound"):
            region.call("DescribeInstances", InstanceIds=[instance_id])


class TestNetworks:
    @pytest.mark.parametrize(
        ("cidr", "code"),
        [
            ("10.0.0.0/33", "InvalidParameterValue"),
            ("10.0.0.1/24", "InvalidParameterValue"),
            ("10.0.0.0/29", "InvalidSubnet.Range"),
            ("10.9.0.0/24", "InvalidSubnet.Range"),
            ("10.0.0.128/25", "InvalidSubnet.Conflict"),
        ],
    )
    def test_a_subnet_that_cannot_be(self, region: Any, refused: Any, cidr: str, code: str) -> None:
        (vpc_id,) = region.cloud.vpcs.current
        with refused(code):
            region.call("CreateSubnet", VpcId=vpc_id, CidrBlock=cidr)

    def test_two_vpcs_may_use_the_same_addresses(self, region: Any) -> None:
        vpc_id = region.call("CreateVpc", CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet_id = region.call("CreateSubnet", VpcId=vpc_id, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        region.create(PrivateIpAddress="10.0.0.9")
        region.create(PrivateIpAddress="10.0.0.9", SubnetId=subnet_id)


class TestTags:
    def test_tags_come_and_go_by_key_and_by_value(self, region: Any) -> None:
        interface_id = region.create()
        tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
        region.call("CreateTags", Resources=[interface_id, region.subnet_id], Tags=tags)
        region.call("DeleteTags", Resources=[interface_id], Tags=[{"Key": "a"}, {"Key": "b", "Value": "9"}])
        assert region.cloud.interfaces.current[interface_id].tags == {"b": "2"}
        told = region.call("DescribeTags", Filters=[{"Name": "resource-id", "Values": [region.subnet_id]}])["Tags"]
        assert {(each["Key"], each["ResourceType"]) for each in told} == {
            ("a", "subnet"), ("b", "subnet"), ("tier", "subnet"),
        }  # fmt: skip

    @pytest.mark.parametrize("key", ["", "aws:mine", "k" * 129])
    def test_a_key_that_cannot_be(self, region: Any, refused: Any, key: str) -> None:
        with refused("InvalidParameterValue"):
            region.call("CreateTags", Resources=[region.subnet_id], Tags=[{"Key": key, "Value": ""}])

    def test_fifty_are_enough(self, region: Any, refused: Any) -> None:
        with refused("TagLimitExceeded"):
            tags = [{"Key": str(number), "Value": ""} for number in range(50)]
            region.call("CreateTags", Resources=[region.subnet_id], Tags=tags)
