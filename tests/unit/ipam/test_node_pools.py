"""Several pools of one node: separate marks and interfaces, shared limits, and nobody undoes what another has done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ipam.errors import AddressConflict, InvalidInput, NotFound
from ipam.fleet import Fleet
from ipam.model import CloudInterface, Instance, Limits, NodeSpec, SecurityGroup, Subnet, Usage, Watermarks
from ipam.plan import CallLimits, PlannedCreate, Shortfall, carries_pods, plan_allocation
from ipam.tags import NODE_TAG, POOL_TAG
from ipam.testing import FakeCloud, IpamSite
from ipam.validation import validate

Sites = Callable[..., IpamSite]
PAYMENTS = "n1/payments"


def pooled(site: IpamSite, spec: NodeSpec, name: str = "payments", **changes: Any) -> NodeSpec:
    """Announces a further pool of the node."""
    more = replace(spec, name=f"{spec.name}/{name}", **changes)
    site.run(site.service.announce(more, Usage()))
    return more


def at_cloud(site: IpamSite, spec: NodeSpec, pool: str = "") -> list[CloudInterface]:
    """Interfaces of a pool as the cloud has them."""
    instance = site.cloud.instance(spec.instance_id)
    return [each for each in instance.interfaces if each.tags.get(POOL_TAG, "") == pool]


def interface(index: int, *addresses: str, pool: str = "", id: str = "") -> CloudInterface:
    return CloudInterface(
        id or f"eni-{index}", f"02::{index}", "subnet-1", "vpc-1", "a", f"10.9.0.{index + 1}", addresses,
        device_index=index, tags={POOL_TAG: pool} if pool else {}, instance_id="i-1",
    )  # fmt: skip


def instance(*interfaces: CloudInterface) -> Instance:
    return Instance("i-1", "m5.large", "a", "vpc-1", "subnet-1", interfaces=interfaces)


class TestPlan:
    CALLS = CallLimits(creates_interfaces=True, max_addresses_per_call=50, max_addresses_on_create=50)
    LIMITS = Limits("m5.large", 3, 10)

    def plan(self, spec: NodeSpec, there: Instance, want: int) -> Any:
        return plan_allocation(
            spec, there, want=want, limits=self.LIMITS, calls=self.CALLS,
            subnets=[Subnet("subnet-1", "10.9.0.0/24", "a", "vpc-1", 200)],
            security_groups=[SecurityGroup("sg-1", "vpc-1")],
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("pool", "tag", "carries"),
        [("", "", True), ("", "x", False), ("x", "", False), ("x", "x", True), ("x", "y", False)],
    )
    def test_an_interface_carries_pods_of_its_own_pool(self, pool: str, tag: str, carries: bool) -> None:
        spec = NodeSpec(f"n1/{pool}" if pool else "n1", "i-1")
        assert carries_pods(spec, interface(1, pool=tag)) is carries

    def test_a_pool_fills_no_interface_of_another(self) -> None:
        spec = NodeSpec("n1/x", "i-1", security_group_ids=("sg-1",))
        plan = self.plan(spec, instance(interface(0), interface(1, "10.9.0.50")), 3)
        (call,) = plan.calls
        assert isinstance(call, PlannedCreate)
        assert call.device_index == 2, "slots are counted over all pools"

    def test_the_limits_are_those_of_the_instance(self) -> None:
        spec = NodeSpec("n1/x", "i-1", security_group_ids=("sg-1",))
        plan = self.plan(spec, instance(interface(0), interface(1), interface(2, pool="y")), 3)
        assert (plan.calls, plan.shortfall) == ((), Shortfall.AT_CAPACITY)


class TestNames:
    @pytest.mark.parametrize("name", ["n1/", "n1/Default", "n1/default", "n1/a/b", "n1/-a", "n1/a-", "n1/" + 32 * "a"])
    def test_bad_names_are_refused(self, name: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            validate(NodeSpec(name, "i-1"))
        assert caught.value.field == "pool"

    @pytest.mark.parametrize("name", ["n1", "n1/a", "n1/a-1", "n1/" + 31 * "a"])
    def test_good_names_pass(self, name: str) -> None:
        validate(NodeSpec(name, "i-1"))


class TestService:
    def test_each_pool_has_its_own_marks_and_interfaces(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node()
        pooled(ipam_site, spec, watermarks=Watermarks(pre_allocate=3))
        ipam_site.work()
        assert len(ipam_site.addresses()) == 8
        assert len(ipam_site.addresses(PAYMENTS)) == 3
        assert not set(ipam_site.told["n1"]) & set(ipam_site.told[PAYMENTS])
        (made,) = at_cloud(ipam_site, spec, "payments")
        assert (made.tags[NODE_TAG], made.device_index > 0) == ("n1", True)
        assert {each.pool for each in ipam_site.told[PAYMENTS].values()} == {"payments"}
        ipam_site.report("n1", in_use=frozenset(ipam_site.addresses()[:8]))
        ipam_site.work()
        assert (len(ipam_site.addresses()), len(ipam_site.addresses(PAYMENTS))) == (16, 3), "demand of one is its own"

    def test_only_another_node_conflicts(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node()
        pooled(ipam_site, spec)
        with pytest.raises(AddressConflict) as caught:
            ipam_site.run(ipam_site.service.announce(replace(spec, name="n2"), Usage()))
        assert "node n1" in str(caught.value)
        for key in ("n1", PAYMENTS):
            ipam_site.run(ipam_site.service.disconnected(key))
        ipam_site.run(ipam_site.service.announce(replace(spec, name="n2"), Usage()))
        assert [each.spec.name for each in ipam_site.service.pools()] == ["n2"]

    def test_pools_share_the_limits_of_their_instance(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node(watermarks=Watermarks(pre_allocate=27))
        ipam_site.work()
        assert len(ipam_site.addresses()) == 27, "all that an m5.large holds"
        pooled(ipam_site, spec)
        ipam_site.advance(60)
        assert ipam_site.addresses(PAYMENTS) == []
        view = ipam_site.service.pool(PAYMENTS)
        assert (view.capacity, view.needed) == (0, 27)
        assert ipam_site.service.status().nodes == 1

    def test_room_that_one_pool_gives_up_is_another_ones(self, ipam_sites: Sites) -> None:
        site = ipam_sites(release_interfaces=True)
        spec = site.node(watermarks=Watermarks(pre_allocate=27))
        site.work()
        more = pooled(site, spec, watermarks=Watermarks(pre_allocate=8))
        site.advance(30)
        site.run(site.service.announce(replace(spec, watermarks=Watermarks(pre_allocate=2)), Usage()))
        for _ in range(200):
            answer(site, "n1")
            site.advance(5)
            if site.addresses(more.name):
                break
        assert len(site.addresses(more.name)) == 8

    def test_an_excess_of_one_pool_is_released_from_it_alone(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node()
        pooled(ipam_site, spec, watermarks=Watermarks(pre_allocate=9))
        ipam_site.work()
        before = ipam_site.addresses()
        pooled(ipam_site, spec, watermarks=Watermarks(pre_allocate=2))
        for _ in range(80):
            answer(ipam_site, PAYMENTS)
            ipam_site.advance(20)
        assert len(ipam_site.addresses(PAYMENTS)) == 2
        assert ipam_site.addresses() == before

    def test_a_pool_that_ends_leaves_the_others_alone(self, ipam_sites: Sites) -> None:
        site = ipam_sites(release_interfaces=True)
        spec = site.node()
        more = pooled(site, spec)
        site.work()
        before = site.addresses()
        site.run(site.service.announce(replace(more, watermarks=Watermarks(pre_allocate=0)), Usage()))
        for _ in range(200):
            answer(site, more.name)
            site.advance(10)
        assert at_cloud(site, spec, "payments") == []
        site.run(site.service.disconnected(more.name))
        with pytest.raises(NotFound):
            site.service.pool(more.name)
        assert site.addresses() == before
        site.new_service()
        assert [each.spec.name for each in site.service.pools()] == ["n1"]

    def test_a_restart_brings_all_pools_back(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node()
        pooled(ipam_site, spec, watermarks=Watermarks(pre_allocate=3))
        ipam_site.work()
        before = ipam_site.addresses(), ipam_site.addresses(PAYMENTS)
        ipam_site.new_service()
        views = {each.spec.name: each for each in ipam_site.service.pools()}
        assert {name: view.attached for name, view in views.items()} == {"n1": 8, PAYMENTS: 3}
        assert (ipam_site.addresses(), ipam_site.addresses(PAYMENTS)) == before
        ipam_site.run(ipam_site.service.announce(views[PAYMENTS].spec, Usage()))
        ipam_site.advance(120)
        assert (ipam_site.addresses(), ipam_site.addresses(PAYMENTS)) == before

    def test_a_repair_mends_interfaces_of_its_own_pool(self, ipam_sites: Sites) -> None:
        site = ipam_sites(cloud=FakeCloud(security_groups=[SecurityGroup(id, "vpc-1") for id in ("sg-1", "sg-2")]))
        spec = site.node(security_group_ids=("sg-1",), watermarks=Watermarks(pre_allocate=12))
        pooled(site, spec, security_group_ids=("sg-2",))
        site.work()
        (made,) = [each for each in at_cloud(site, spec) if each.device_index]
        (theirs,) = at_cloud(site, spec, "payments")
        site.advance(130)
        assert site.cloud.calls["set-security-groups"] == site.cloud.calls["set-tags"] == 0, "nobody minds the other's"
        for each in (made, theirs):
            site.cloud.change(each.id, security_group_ids=("sg-9",))
        site.advance(400)
        assert [each.security_group_ids for each in at_cloud(site, spec, "payments")] == [("sg-2",)]
        assert at_cloud(site, spec)[1].security_group_ids == ("sg-1",)
        assert site.cloud.calls["set-security-groups"] == 2

    def test_explain_tells_of_all_pools_of_the_node(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node()
        pooled(ipam_site, spec)
        messages = [each.message for each in ipam_site.service.explain("n1")]
        assert any(each.startswith("pool payments: ") for each in messages)
        assert not any(
            each.startswith("pool ") for each in (one.message for one in ipam_site.service.explain(PAYMENTS))
        )

    def test_an_instance_that_is_gone_takes_all_pools_along(self, ipam_site: IpamSite) -> None:
        spec = ipam_site.node()
        pooled(ipam_site, spec)
        ipam_site.work()
        for key in ("n1", PAYMENTS):
            ipam_site.run(ipam_site.service.disconnected(key))
        ipam_site.cloud.terminate(spec.instance_id)
        ipam_site.advance(200)
        assert ipam_site.service.pools() == []


class TestMerge:
    """What one pool's worker read may be older than what another's has done."""

    def fleet(self) -> tuple[Fleet, Any, Any]:
        fleet = Fleet()
        mine, other = fleet.put_node(NodeSpec("n1", "i-1")), fleet.put_node(NodeSpec("n1/x", "i-1"))
        fleet.merge_instance(mine, instance(interface(0, "10.9.0.10"), interface(1, "10.9.0.11", pool="x")), 1.0)
        return fleet, mine, other

    def test_addresses_belong_to_the_pool_of_their_interface(self) -> None:
        fleet, mine, other = self.fleet()
        assert fleet.owners.within("vpc-1") == {"10.9.0.10": "n1", "10.9.0.11": "n1/x"}
        assert mine.instance is other.instance

    def test_an_old_reading_takes_nothing_from_another_pool(self) -> None:
        fleet, mine, other = self.fleet()
        now = instance(interface(0, "10.9.0.10"), interface(1, "10.9.0.11", "10.9.0.12", pool="x"))
        fleet.merge_instance(other, now, 2.0)
        fleet.merge_instance(mine, instance(interface(0, "10.9.0.10", "10.9.0.13")), 3.0)
        assert fleet.addresses(other) == {"10.9.0.11", "10.9.0.12"}
        assert fleet.addresses(mine) == {"10.9.0.10", "10.9.0.13"}

    def test_an_old_reading_brings_nothing_back(self) -> None:
        fleet, mine, other = self.fleet()
        old = instance(interface(0, "10.9.0.10"), interface(1, "10.9.0.11", pool="x"))
        fleet.merge_instance(other, instance(interface(0, "10.9.0.10")), 2.0)
        fleet.merge_instance(mine, old, 3.0)
        assert fleet.owners.within("vpc-1") == {"10.9.0.10": "n1"}

    def test_an_interface_moves_with_its_tag_when_the_pool_that_it_leaves_tells(self) -> None:
        fleet, mine, other = self.fleet()
        now = instance(interface(0, "10.9.0.10"), interface(1, "10.9.0.11"))
        fleet.merge_instance(mine, now, 2.0)
        assert fleet.owners.get(("vpc-1", "10.9.0.11")) == "n1/x"
        fleet.merge_instance(other, now, 3.0)
        assert fleet.owners.get(("vpc-1", "10.9.0.11")) == "n1"

    def test_what_is_no_pools_is_still_somebodys(self) -> None:
        fleet, mine, other = self.fleet()
        fleet.remove_node(other)
        assert fleet.owners.within("vpc-1") == {"10.9.0.10": "n1", "10.9.0.11": "n1"}
        assert not carries_pods(mine.spec, mine.instance.interfaces[1])
        again = fleet.put_node(NodeSpec("n1/x", "i-1"))
        assert fleet.owners.get(("vpc-1", "10.9.0.11")) == "n1/x"
        assert again.reread
        assert again.instance is mine.instance

    def test_another_instance_disputes_the_address_with_its_pool(self) -> None:
        fleet, _, other = self.fleet()
        third = fleet.put_node(NodeSpec("n2", "i-2"))
        claimed = replace(interface(0, "10.9.0.11", id="eni-9"), instance_id="i-2")
        fleet.merge_instance(third, replace(instance(claimed), id="i-2"), 2.0)
        assert fleet.disputes == {("vpc-1", "10.9.0.11"): "n2"}
        assert other.reread


def answer(site: IpamSite, key: str) -> None:
    """The node fences all that is marked, in use it has nothing."""
    site.report(key, ready=frozenset(a for a, s in site.states(key).items() if s in ("marked", "ready", "releasing")))
