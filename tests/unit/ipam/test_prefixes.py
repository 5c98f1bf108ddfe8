"""Addresses that come as whole prefixes: brought, packed, given back, and done without where there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ipam.errors import Unavailable
from ipam.model import (
    NO_TAGS,
    CloudInterface,
    Instance,
    Limits,
    NodeSpec,
    SecurityGroup,
    Subnet,
    Usage,
    Watermarks,
    members,
)
from ipam.plan import CallLimits, PlannedAssign, PlannedCreate, capacity, free_slots, plan_allocation, prefix_block
from ipam.testing import FakeCloud, IpamSite

Sites = Callable[..., IpamSite]
ZONE = {"zone": "zone-a", "vpc_id": "vpc-1", "free": 0}
SIBLINGS = (Subnet("subnet-a", "10.0.0.0/26", **ZONE), Subnet("subnet-b", "10.0.1.0/26", **ZONE))  # type: ignore[arg-type]


def prefixes(site: IpamSite) -> list[str]:
    return [prefix for each in site.cloud.interfaces().values() for prefix in each.prefixes]


def singles(site: IpamSite) -> list[str]:
    return [address for each in site.cloud.interfaces().values() for address in each.addresses]


class TestBringing:
    def test_a_node_that_asks_for_prefixes_gets_whole_ones(self, ipam_site: IpamSite) -> None:
        ipam_site.node(prefix_delegation=True)
        ipam_site.advance(1)
        assert len(prefixes(ipam_site)) == 1
        assert singles(ipam_site) == []
        assert ipam_site.addresses() == list(members(prefixes(ipam_site)[0]))
        assert ipam_site.cloud.calls["assign-prefixes"] == 1

    def test_what_its_last_prefix_brings_beyond_the_marks_is_no_excess(self, ipam_site: IpamSite) -> None:
        ipam_site.node(prefix_delegation=True, watermarks=Watermarks(pre_allocate=8))
        ipam_site.advance(1)
        assert (ipam_site.service.pool("n1").attached, ipam_site.service.pool("n1").excess) == (16, 0)
        used = frozenset(ipam_site.addresses()[:12])
        ipam_site.report(in_use=used)
        ipam_site.advance(60)
        assert ipam_site.service.pool("n1").attached == 32
        ipam_site.report(in_use=frozenset(ipam_site.addresses()[:2]))
        assert ipam_site.service.pool("n1").excess == 16, "one prefix is wholly unused, and can go"
        one_of_each = frozenset(ipam_site.addresses()[::16])
        ipam_site.report(in_use=one_of_each)
        assert ipam_site.service.pool("n1").excess == 0, "neither can go"

    def test_one_that_does_not_gets_single_ones(self, ipam_site: IpamSite) -> None:
        ipam_site.node()
        ipam_site.advance(1)
        assert (len(singles(ipam_site)), prefixes(ipam_site)) == (8, [])

    def test_so_does_one_whose_type_takes_none(self, ipam_site: IpamSite) -> None:
        ipam_site.node(type_="m4.large", prefix_delegation=True)
        ipam_site.advance(1)
        assert (len(singles(ipam_site)), prefixes(ipam_site)) == (8, [])

    def test_an_interface_is_created_with_its_prefixes(self, ipam_site: IpamSite) -> None:
        ipam_site.node(prefix_delegation=True, first_interface_index=1, watermarks=Watermarks(pre_allocate=40))
        ipam_site.advance(1)
        assert len(prefixes(ipam_site)) == 3
        assert ipam_site.cloud.calls["assign-prefixes"] == 0
        assert ipam_site.cloud.mutating_calls() == 3  # create, attach, protect

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("operation", ["assign-prefixes", "create-interface", "attach-interface"])
    def test_a_cut_call_brings_none_twice(self, ipam_site: IpamSite, operation: str, after: bool) -> None:
        index = 0 if operation == "assign-prefixes" else 1
        ipam_site.node(prefix_delegation=True, first_interface_index=index)
        ipam_site.cloud.fail(operation, Unavailable("cut"), after_effect=after)
        ipam_site.advance(90)
        assert len(prefixes(ipam_site)) == 1
        assert len(ipam_site.addresses()) == 16

    def test_a_new_leader_knows_the_members_of_prefixes(self, ipam_site: IpamSite) -> None:
        ipam_site.node(prefix_delegation=True)
        ipam_site.advance(1)
        before = ipam_site.addresses()
        ipam_site.run(ipam_site.service.stop())
        ipam_site.new_service()
        assert list(next(iter(ipam_site.service.interfaces("n1").values())).addresses) == before


class TestWithoutBlocks:
    def site(self, sites: Sites, subnets: tuple[Subnet, ...] = SIBLINGS) -> IpamSite:
        return sites(cloud=FakeCloud(subnets=subnets), block_s=300.0)

    def fragment(self, site: IpamSite, subnet_id: str) -> list[str]:
        """Leaves free addresses in the subnet, and no whole block."""
        taken = site.cloud.drain(subnet_id)
        scattered = [each for each in taken if int(each.rsplit(".")[-1]) % 16 >= 8]
        site.cloud.refill(subnet_id, scattered)
        return [each for each in taken if each not in scattered]

    def test_a_sibling_that_has_some_is_taken(self, ipam_sites: Sites) -> None:
        site = self.site(ipam_sites)
        site.node(prefix_delegation=True)
        self.fragment(site, "subnet-a")
        site.advance(30)
        assert len(prefixes(site)) == 1
        assert all(prefix.startswith("10.0.1.") for prefix in prefixes(site))

    def test_without_a_sibling_single_addresses_do_and_prefixes_come_back_with_the_blocks(
        self, ipam_sites: Sites
    ) -> None:
        site = self.site(ipam_sites, SIBLINGS[:1])
        site.node(prefix_delegation=True)
        rest = self.fragment(site, "subnet-a")
        site.advance(30)
        assert (len(singles(site)), prefixes(site)) == (8, [])
        assert any(prefix_block("subnet-a") == key for key in site.service._term.fleet.blocks)  # type: ignore[union-attr]
        assert any("for prefixes" in each.message for each in site.service.explain("n1"))
        site.cloud.refill("subnet-a", rest)
        site.report(in_use=frozenset(singles(site)))
        site.advance(40)
        assert prefixes(site) == []  # still passed over
        site.advance(310)
        site.report(in_use=frozenset(site.addresses()))
        site.advance(60)
        assert prefixes(site) != []


class TestReleasing:
    def surplus(self, site: IpamSite) -> list[str]:
        """Two prefixes are there for pods that have gone; returns the prefixes."""
        site.node(prefix_delegation=True, watermarks=Watermarks(pre_allocate=8))
        site.advance(1)
        site.report(in_use=frozenset(site.addresses()[:12]))
        site.advance(40)
        assert len(prefixes(site)) == 2
        return prefixes(site)

    def answer(self, site: IpamSite, in_use: frozenset[str]) -> None:
        """The node's word on what is marked now."""
        marked = {address for address, state in site.states().items() if state == "marked"}
        site.report(in_use=in_use, ready=marked - in_use, refused=marked & in_use)

    def test_a_wholly_unused_prefix_goes(self, ipam_site: IpamSite) -> None:
        first, second = self.surplus(ipam_site)
        used = frozenset(members(first)[:1])
        ipam_site.report(in_use=used)
        for _ in range(200):
            ipam_site.advance(5)
            if "marked" in ipam_site.states().values():
                break
        assert {address for address, state in ipam_site.states().items() if state == "marked"} == set(members(second))
        self.answer(ipam_site, used)
        ipam_site.advance(10)
        assert prefixes(ipam_site) == [first]
        assert ipam_site.cloud.calls["unassign-prefixes"] == 1

    def test_a_prefix_with_one_address_in_use_stays(self, ipam_site: IpamSite) -> None:
        first, second = self.surplus(ipam_site)
        ipam_site.report(in_use=frozenset((members(first)[0], members(second)[15])))
        ipam_site.advance(1500)
        assert sorted(prefixes(ipam_site)) == sorted((first, second))
        assert "marked" not in ipam_site.states().values()

    def test_one_refusal_keeps_the_whole_prefix(self, ipam_site: IpamSite) -> None:
        first, second = self.surplus(ipam_site)
        used = frozenset(members(first)[:1])
        ipam_site.report(in_use=used)
        for _ in range(200):
            ipam_site.advance(5)
            if "marked" in ipam_site.states().values():
                break
        self.answer(ipam_site, used | {members(second)[3]})
        ipam_site.advance(10)
        assert sorted(prefixes(ipam_site)) == sorted((first, second))
        assert set(ipam_site.states().values()) == {"available"}


LARGE = Limits("m5.large", interfaces=3, ipv4_per_interface=4, ipv6_per_interface=4, prefixes=True)
CALLS = CallLimits(True, 64, 64, prefix_size=16, ipv6=True, ipv6_prefixes=True)
SPEC = NodeSpec("n1", "i-1", prefix_delegation=True)
GROUPS = (SecurityGroup("sg-1", "vpc-1"),)


def eni(id: str = "eni-0", index: int = 0, card: int = 0, **more: object) -> CloudInterface:
    base = CloudInterface(
        id, "02:00:00:00:00:01", "subnet-a", "vpc-1", "zone-a", f"10.0.0.{10 + index + 16 * card}", instance_id="i-1",
        device_index=index, network_card=card, security_group_ids=("sg-1",),
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def machine(*interfaces: CloudInterface) -> Instance:
    return Instance("i-1", "m5.large", "zone-a", "vpc-1", "subnet-a", NO_TAGS, ("sg-1",), interfaces)


class TestPlanning:
    def plan(self, want: int, *interfaces: CloudInterface, free: int = 200, spec: NodeSpec = SPEC, **more: object):  # type: ignore[no-untyped-def]
        subnets = (Subnet("subnet-a", "10.0.0.0/24", "zone-a", "vpc-1", free, **more),)  # type: ignore[arg-type]
        return plan_allocation(
            spec, machine(*interfaces), want=want, limits=LARGE, calls=CALLS, subnets=subnets, security_groups=GROUPS
        )

    def test_addresses_and_prefixes_share_an_interface(self) -> None:
        assert self.plan(40, eni(addresses=("10.0.0.99",))).calls[0] == PlannedAssign("eni-0", "subnet-a", 2, 16)

    def test_a_part_of_a_prefix_brings_it_whole_and_no_more_is_told_than_was_wanted(self) -> None:
        plan = self.plan(17, eni())
        assert (plan.calls, plan.brings) == ((PlannedAssign("eni-0", "subnet-a", 2, 16),), 17)

    def test_what_the_subnet_says_of_its_blocks_counts(self) -> None:
        plan = self.plan(40, eni(), free_prefixes=1)
        assert plan.calls[:2] == (
            PlannedAssign("eni-0", "subnet-a", 1, 16),
            PlannedAssign("eni-0", "subnet-a", 2),
        )

    def test_new_interfaces_have_ipv6_where_the_subnet_has_it(self) -> None:
        full = eni(prefixes=("10.0.1.0/28", "10.0.1.16/28", "10.0.1.32/28"))
        (made,) = self.plan(8, full, spec=replace(SPEC, ipv6=True), ipv6_cidr="fd00:1::/64").calls
        assert isinstance(made, PlannedCreate)
        assert (made.prefix_count, made.ipv6_prefix_count, made.secondary_count) == (1, 1, 0)

    def test_capacity_counts_prefixes(self) -> None:
        assert capacity(SPEC, machine(eni()), LARGE, prefix_size=16) == 9 * 16
        assert capacity(SPEC, machine(eni()), LARGE) == 9

    def test_an_instance_may_have_a_limit_of_its_own(self) -> None:
        limits = replace(LARGE, addresses_per_instance=6)
        plan = plan_allocation(
            replace(SPEC, prefix_delegation=False), machine(eni(), eni("eni-1", 1)), want=9, limits=limits,
            calls=replace(CALLS, prefix_size=0), subnets=(Subnet("subnet-a", "10.0.0.0/24", "zone-a", "vpc-1", 200),),
            security_groups=GROUPS,
        )  # fmt: skip
        assert plan.brings == 4
        assert "6 in all" in plan.why


class TestCards:
    CARDS = replace(LARGE, interfaces=6, network_cards=2, card_interfaces=(3, 3))

    def test_interfaces_spread_over_the_cards(self) -> None:
        assert free_slots(SPEC, machine(eni()), self.CARDS) == [(1, 1), (0, 1), (1, 2), (0, 2), (1, 3)]

    def test_a_place_that_is_taken_is_passed_over(self) -> None:
        held = machine(eni(), eni("eni-1", 1, 1), eni("eni-2", 2))
        assert free_slots(SPEC, held, self.CARDS) == [(1, 2), (0, 1), (1, 3)]

    def test_they_are_attached_there_and_the_node_numbers_them_in_one_row(self, ipam_site: IpamSite) -> None:
        ipam_site.node(type_="cards.large", first_interface_index=1, watermarks=Watermarks(pre_allocate=27))
        ipam_site.advance(10)
        made = [each for each in ipam_site.cloud.interfaces().values() if each.tags]
        assert sorted((each.network_card, each.device_index) for each in made) == [(0, 1), (1, 1), (1, 2)]
        assert sorted(each.device_index for each in ipam_site.told["n1"].values()) == [1, 33, 34]


class TestPrimaryAddress:
    def test_that_of_a_secondary_interface_carries_a_pod(self, ipam_site: IpamSite) -> None:
        ipam_site.node(use_primary_address=True, watermarks=Watermarks(pre_allocate=12))
        ipam_site.advance(5)
        made = next(each for each in ipam_site.cloud.interfaces().values() if each.tags)
        assert len(ipam_site.addresses()) == 12
        assert made.primary_address in ipam_site.addresses()
        assert len(made.addresses) == 2

    def test_it_is_never_released(self, ipam_site: IpamSite) -> None:
        ipam_site.node(use_primary_address=True, watermarks=Watermarks(pre_allocate=12))
        ipam_site.advance(5)
        made = next(each for each in ipam_site.cloud.interfaces().values() if each.tags)
        ipam_site.run(
            ipam_site.service.announce(replace(ipam_site.service.pool("n1").spec, watermarks=Watermarks(0)), Usage())
        )
        for _ in range(300):
            ipam_site.advance(5)
            marked = frozenset(address for address, state in ipam_site.states().items() if state == "marked")
            if marked:
                ipam_site.report(ready=marked)
        assert ipam_site.addresses() in ([made.primary_address], [])
