"""Filters, pages, and what a reader sees while the cloud is eventually consistent."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab.fake_cloud.history import Table
from lab.fake_ec2.records import Subnet


class TestFilters:
    def test_each_fact_is_found(self, region: Any) -> None:
        instance_id = region.launch()
        (first,) = (each.id for each in region.cloud.interfaces_of(instance_id))
        lone = region.create(SubnetId=region.small_subnet_id, Description="lone wolf")
        region.call("CreateTags", Resources=[lone], Tags=[{"Key": "team", "Value": "red*"}])
        rows = [
            ("attachment.instance-id", instance_id, {first}),
            ("attachment.instance-id", "i-*", {first}),
            ("status", "available", {lone}),
            ("subnet-id", region.small_subnet_id, {lone}),
            ("availability-zone", "eu-central-1?", {first, lone}),
            ("network-interface-id", first, {first}),
            ("description", "lone*", {lone}),
            ("tag:team", "red\\*", {lone}),
            ("tag:team", "r?d*", {lone}),
            ("tag:team", "green", set()),
            ("tag-key", "te*", {lone}),
            ("group-id", "sg-*", {first, lone}),
        ]
        assert [(name, value, region.filtered(name, value)) for name, value, _ in rows] == rows

    def test_values_are_alternatives_and_filters_all_hold(self, region: Any) -> None:
        first, second = region.create(), region.create(SubnetId=region.small_subnet_id)
        assert region.filtered("subnet-id", region.subnet_id, region.small_subnet_id) == {first, second}
        both = [
            {"Name": "subnet-id", "Values": [region.subnet_id]},
            {"Name": "network-interface-id", "Values": [second]},
        ]
        assert region.listed(Filters=both) == set()

    def test_an_unknown_filter_is_refused(self, region: Any, refused: Any) -> None:
        for name in ("colour", "tags"):
            with refused("InvalidParameterValue"):
                region.filtered(name, "x")


class TestPages:
    def test_pages_tell_each_once_though_some_come_and_go_meanwhile(self, region: Any) -> None:
        made = [region.create() for _ in range(12)]
        first = region.call("DescribeNetworkInterfaces", MaxResults=5)
        region.call("DeleteNetworkInterface", NetworkInterfaceId=made[2])
        made.append(region.create())
        second = region.call("DescribeNetworkInterfaces", MaxResults=5, NextToken=first["NextToken"])
        last = region.call("DescribeNetworkInterfaces", MaxResults=5, NextToken=second["NextToken"])
        assert [len(page["NetworkInterfaces"]) for page in (first, second, last)] == [5, 5, 3]
        assert last["NextToken"] is None

    def test_a_token_is_good_for_its_own_listing_only(self, region: Any, refused: Any) -> None:
        for _ in range(6):
            region.create()
        token = region.call("DescribeNetworkInterfaces", MaxResults=5)["NextToken"]
        other = [{"Name": "status", "Values": ["available"]}]
        for forged in ("", token[:-4] + "AAAA", "not base64 ä"):
            if forged:
                with refused("InvalidNextToken"):
                    region.call("DescribeNetworkInterfaces", MaxResults=5, NextToken=forged)
        with refused("InvalidNextToken"):
            region.call("DescribeNetworkInterfaces", MaxResults=5, NextToken=token, Filters=other)

    def test_a_page_has_a_least_and_a_largest_size_and_no_ids(self, region: Any, refused: Any) -> None:
        for size in (0, 4, 1001):
            with refused("InvalidParameterValue"):
                region.call("DescribeNetworkInterfaces", MaxResults=size)
        with refused("InvalidParameterCombination"):
            region.call("DescribeNetworkInterfaces", MaxResults=5, NetworkInterfaceIds=[region.create()])


class TestEventualConsistency:
    def test_what_is_new_is_not_found_and_what_is_gone_still_told(self, region: Any, refused: Any) -> None:
        old = region.create()
        region.cloud.faults.eventual_consistency_s = 2
        new = region.create()
        region.call("DeleteNetworkInterface", NetworkInterfaceId=old)
        assert region.listed() == {old}
        with refused("InvalidNetworkInterfaceID.NotFound"):
            region.call("DescribeNetworkInterfaces", NetworkInterfaceIds=[new])
        region.now += 2
        assert region.listed() == {new}

    def test_calls_that_change_something_see_the_present_unless_told_otherwise(self, region: Any, refused: Any) -> None:
        region.cloud.faults.eventual_consistency_s = 2
        interface_id = region.create()
        region.call("AssignPrivateIpAddresses", NetworkInterfaceId=interface_id, SecondaryPrivateIpAddressCount=1)
        region.cloud.faults.eventual_consistency_on_writes = True
        with refused("InvalidNetworkInterfaceID.NotFound"):
            region.call("DeleteNetworkInterface", NetworkInterfaceId=interface_id)

    @given(st.lists(st.tuples(st.floats(0.01, 2), st.integers(0, 3), st.booleans()), max_size=25), st.floats(0.1, 3))
    def test_a_reader_sees_the_table_as_it_stood_a_lag_ago(
        self, changes: list[tuple[float, int, bool]], lag_s: float
    ) -> None:
        now = 0.0
        table = Table[Subnet](lambda: now, lambda: lag_s)
        past: list[tuple[float, dict[str, Subnet]]] = [(-1.0, {})]
        for version, (pause, key, present) in enumerate(changes):
            now += pause
            record = Subnet(key, f"subnet-{key}", "vpc", "10.0.0.0/24", f"v{version}")
            if present:
                table.put(record)
            elif record.id in table.current:
                table.remove(record.id)
            past.append((now, dict(table.current)))
            then = next(state for at, state in reversed(past) if at <= now - lag_s or at < 0)
            assert {each.id: each for each in table.readable()} == then
            assert all(table.seen(f"subnet-{key}") == then.get(f"subnet-{key}") for key in range(4))
