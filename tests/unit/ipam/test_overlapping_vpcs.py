"""Two VPCs of one account with the same ranges: an address is known by its VPC, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ipam.fleet import Fleet, restore
from ipam.model import AddressState, CloudInterface, Instance, NodeSpec, SecurityGroup, Subnet, Usage
from ipam.ports import Stored
from ipam.testing import FakeCloud, IpamSite

Sites = Callable[..., IpamSite]


@pytest.fixture
def site(ipam_sites: Sites) -> IpamSite:
    """Its cloud has two VPCs, and hands out the lowest free address of a subnet first."""
    subnets = [Subnet(f"subnet-{one}", "10.0.0.0/24", "zone-a", f"vpc-{one}", 0) for one in ("a", "b")]
    groups = [SecurityGroup(f"sg-{one}", f"vpc-{one}") for one in ("a", "b")]
    return ipam_sites(cloud=FakeCloud(subnets=subnets, security_groups=groups))


def give_twice(cloud: FakeCloud, address: str, interface_id: str) -> None:
    cloud.change(interface_id, addresses=(*cloud.interfaces()[interface_id].addresses, address))


def said(site: IpamSite, node: str) -> str:
    return "\n".join(each.message for each in site.service.explain(node))


def test_nodes_of_two_vpcs_have_the_same_addresses_and_nobody_disputes_them(site: IpamSite) -> None:
    nodes = {name: site.node(name, subnet_id=f"subnet-{name}") for name in ("a", "b")}
    site.advance(150)  # a resync is among it
    assert site.addresses("a") == site.addresses("b") != []
    assert {each.vpc_id for each in site.told["b"].values()} == {"vpc-b"}
    assert "the cloud says" not in said(site, "a") + said(site, "b")
    for spec in nodes.values():
        at_cloud = [a for each in site.cloud.instance(spec.instance_id).interfaces for a in each.all_addresses]
        assert site.addresses(spec.name) == at_cloud


def test_each_gives_back_its_own(site: IpamSite) -> None:
    for name in ("a", "b"):
        site.node(name, subnet_id=f"subnet-{name}")
    site.work()
    used = frozenset(site.addresses("b"))
    site.report("b", in_use=used)
    site.report("a", in_use=frozenset(site.addresses("a")))
    site.advance(30)
    assert site.addresses("a") == site.addresses("b")
    site.report("a")
    for _ in range(60):
        site.advance(10)
        site.report("a", ready=frozenset(a for a, state in site.states("a").items() if state != "available"))
    assert len(site.addresses("a")) == 8
    assert len(site.addresses("b")) == 16
    assert set(site.states("b").values()) == {"available"}, "what the other releases is not marked here"


def test_a_restart_keeps_them_apart_in_the_middle_of_a_release(site: IpamSite) -> None:
    for name in ("a", "b"):
        site.node(name, subnet_id=f"subnet-{name}")
    site.work()
    (address, *_) = site.addresses("a")
    fleet = site.service._leading().fleet
    fleet.set_state(fleet.pools["a"], address, AddressState.RELEASING)
    site.run(site.service.resync())
    site.new_service()
    assert site.states("a")[address] == "releasing"
    assert set(site.states("b").values()) == {"available"}


def test_within_a_vpc_an_address_of_two_nodes_is_found(site: IpamSite) -> None:
    site.node("a", subnet_id="subnet-a")
    site.node("b", subnet_id="subnet-b")
    second = site.node("b2", subnet_id="subnet-b")
    site.work()
    (address, *_) = site.addresses("b")
    assert address in site.addresses("a")
    give_twice(site.cloud, address, site.cloud.instance(second.instance_id).interfaces[0].id)
    site.clock.advance(1)  # what was merged before the listing began is newer than the listing
    site.run(site.service.resync())
    site.work()
    assert address in site.addresses("b"), "the first owner keeps it"
    assert address not in site.addresses("b2")
    words = f"{address} of vpc-b is on b, and the cloud says on b2 too"
    assert words in said(site, "b")
    assert words in said(site, "b2")
    assert "the cloud says" not in said(site, "a")


def test_a_node_of_another_vpc_that_is_gone_frees_nothing_here(site: IpamSite) -> None:
    first = site.node("a", subnet_id="subnet-a")
    site.node("b", subnet_id="subnet-b")
    site.work()
    before = site.addresses("b")
    site.run(site.service.disconnected("a"))
    site.cloud.terminate(first.instance_id)
    site.advance(200)
    assert [each.spec.name for each in site.service.pools()] == ["b"]
    assert site.addresses("b") == before
    late = site.cloud.launch(subnet_id="subnet-b")
    give_twice(site.cloud, before[0], late.interfaces[0].id)
    site.run(site.service.announce(NodeSpec("b2", late.id), Usage()))
    site.work()
    assert before[0] not in site.addresses("b2"), "it is b's still"


class TestFleet:
    """An instance may have interfaces in several VPCs, attached by others than this service."""

    @staticmethod
    def instance(id: str, *interfaces: tuple[str, tuple[str, ...]]) -> Instance:
        """:param interfaces: VPCs and addresses."""
        made = tuple(
            CloudInterface(f"eni-{id}-{n}", "02::1", f"subnet-{vpc}", vpc, "a", f"10.9.{n}.1", addresses, id,
                           device_index=n)
            for n, (vpc, addresses) in enumerate(interfaces)
        )  # fmt: skip
        return Instance(id, "m5.large", "a", interfaces[0][0], interfaces=made)

    def test_each_address_is_of_the_vpc_of_its_interface(self) -> None:
        fleet = Fleet()
        pool = fleet.put_node(NodeSpec("n1", "i-1"))
        fleet.merge_instance(pool, self.instance("i-1", ("vpc-1", ("10.0.0.1",)), ("vpc-2", ("10.0.0.2",))), 1.0)
        other = fleet.put_node(NodeSpec("n2", "i-2"))
        fleet.merge_instance(other, self.instance("i-2", ("vpc-2", ("10.0.0.1", "10.0.0.2"))), 1.0)
        assert fleet.owners.within("vpc-1") == {"10.0.0.1": "n1"}
        assert fleet.owners.within("vpc-2") == {"10.0.0.1": "n2", "10.0.0.2": "n1"}
        assert fleet.disputes == {("vpc-2", "10.0.0.2"): "n2"}
        assert fleet.is_disputed(pool)
        assert not fleet.is_disputed(other)
        fleet.set_state(pool, "10.0.0.2", AddressState.MARKED)
        fleet.set_state(other, "10.0.0.1", AddressState.READY)
        assert fleet.take_changes().address_states == {
            ("vpc-2", "10.0.0.2"): AddressState.MARKED, ("vpc-2", "10.0.0.1"): AddressState.READY,
        }  # fmt: skip

    def test_what_an_instance_would_have_twice_is_told_to_nobody(self) -> None:
        fleet = Fleet()
        pool = fleet.put_node(NodeSpec("n1", "i-1"))
        both = self.instance("i-1", ("vpc-1", ("10.0.0.1", "10.0.0.2")), ("vpc-2", ("10.0.0.1",)))
        fleet.merge_instance(pool, both, 1.0)
        assert fleet.addresses(pool) == {"10.0.0.2"}, "a node leases by the text alone"

    def test_an_interface_in_another_vpc_leaves_no_owner_behind(self) -> None:
        fleet = Fleet()
        pool = fleet.put_node(NodeSpec("n1", "i-1"))
        fleet.merge_instance(pool, self.instance("i-1", ("vpc-1", ("10.0.0.1",)), ("vpc-2", ("10.0.0.2",))), 1.0)
        fleet.merge_instance(pool, self.instance("i-1", ("vpc-1", ("10.0.0.1", "10.0.0.2"))), 2.0)
        assert fleet.owners.within("vpc-2") == {}
        assert fleet.owners.within("vpc-1") == {"10.0.0.1": "n1", "10.0.0.2": "n1"}

    def test_what_was_stored_comes_back(self) -> None:
        specs = [NodeSpec("n1", "i-1"), NodeSpec("n2", "i-2")]
        instances = [self.instance("i-1", ("vpc-1", ("10.0.0.1",))), self.instance("i-2", ("vpc-2", ("10.0.0.1",)))]
        stored = Stored(
            nodes=specs, instances=instances, address_states={("vpc-2", "10.0.0.1"): AddressState.RELEASING},
            intents=(), dead_letters=(), limits=(), subnets=(), security_groups=(), blocks=(),
        )  # fmt: skip
        fleet = restore(stored, now=0.0, monotonic=0.0, lease_s=1.0, backoff_cap_s=1.0, block_s=1.0)
        assert [pool.states for pool in fleet.pools.values()] == [{}, {"10.0.0.1": AddressState.RELEASING}]
        assert not fleet.dirty
