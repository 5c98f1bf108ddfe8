"""Live interfaces that differ from what they should be are set right: groups, tags, IPv6, a public address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ipam.errors import Rejected, Unavailable
from ipam.model import CloudInterface, IntentKind, PublicAddress, SecurityGroup, Subnet, Usage, Watermarks
from ipam.testing import FakeCloud, IpamSite

Sites = Callable[..., IpamSite]
TWELVE = Watermarks(pre_allocate=12)  # the first interface, and one of ours
DUAL = Subnet("subnet-a", "10.0.0.0/16", "zone-a", "vpc-1", 0, ipv6_cidr="fd00:1::/64")
GROUPS = (SecurityGroup("sg-1", "vpc-1"), SecurityGroup("sg-2", "vpc-1", {"role": "pods"}))


class Killed(BaseException):
    pass


@pytest.fixture
def site(ipam_sites: Sites) -> IpamSite:
    return ipam_sites(cloud=FakeCloud(subnets=(DUAL,), security_groups=GROUPS))


def ours(site: IpamSite) -> CloudInterface:
    return next(each for each in site.cloud.interfaces().values() if "plimsoll:cluster" in each.tags)


def first(site: IpamSite) -> CloudInterface:
    return next(each for each in site.cloud.interfaces().values() if each.device_index == 0 and each.instance_id)


def resync(site: IpamSite) -> None:
    site.run(site.service.resync())
    site.advance(10)


class TestGroups:
    def test_those_that_somebody_changed_are_set_back(self, site: IpamSite) -> None:
        site.node(watermarks=TWELVE)
        site.advance(5)
        site.cloud.change(ours(site).id, security_group_ids=("sg-2",))
        resync(site)
        assert ours(site).security_group_ids == ("sg-1",)
        assert site.cloud.calls["set-security-groups"] == 1

    def test_new_settings_reach_interfaces_that_exist(self, site: IpamSite) -> None:
        spec = site.node(watermarks=TWELVE)
        site.advance(5)
        site.run(site.service.announce(replace(spec, security_group_tags={"role": "pods"}), Usage()))
        resync(site)
        assert ours(site).security_group_ids == ("sg-2",)
        assert first(site).security_group_ids == ("sg-1",)  # not ours to change

    @pytest.mark.parametrize("tags", [{"plimsoll:cluster": "another"}, {}])
    def test_interfaces_of_others_are_left_alone(self, site: IpamSite, tags: dict[str, str]) -> None:
        site.node(watermarks=TWELVE)
        site.advance(5)
        theirs = ours(site).id
        site.cloud.change(theirs, tags=tags, security_group_ids=("sg-2",))
        resync(site)
        assert site.cloud.interfaces()[theirs].security_group_ids == ("sg-2",)

    def test_so_is_one_that_is_excluded(self, site: IpamSite) -> None:
        site.node(watermarks=TWELVE, exclude_interface_tags={"no": "manage"})
        site.advance(5)
        mine = ours(site)
        site.cloud.change(mine.id, tags={**mine.tags, "no": "manage"}, security_group_ids=("sg-2",))
        resync(site)
        assert site.cloud.interfaces()[mine.id].security_group_ids == ("sg-2",)


class TestTags:
    def test_those_that_somebody_took_away_come_back(self, site: IpamSite) -> None:
        site.node(watermarks=TWELVE)
        site.advance(5)
        site.cloud.change(ours(site).id, tags={"plimsoll:cluster": "plimsoll", "owner": "them"})
        resync(site)
        assert ours(site).tags["plimsoll:node"] == "n1"
        assert ours(site).tags["owner"] == "them"

    @pytest.mark.parametrize("after", [False, True])
    def test_a_cut_call_is_repeated(self, site: IpamSite, after: bool) -> None:
        site.node(watermarks=TWELVE)
        site.advance(5)
        site.cloud.change(ours(site).id, tags={"plimsoll:cluster": "plimsoll"})
        site.cloud.fail("set-tags", Unavailable("cut"), after_effect=after)
        resync(site)
        site.advance(30)
        assert ours(site).tags["plimsoll:node"] == "n1"

    def test_what_the_cloud_refuses_is_not_asked_with_every_review(self, site: IpamSite) -> None:
        site.node(watermarks=TWELVE)
        site.advance(5)
        site.cloud.change(ours(site).id, tags={"plimsoll:cluster": "plimsoll"})
        site.cloud.fail("set-tags", Rejected("no"), count=1000)
        resync(site)
        site.advance(200)
        assert site.cloud.calls["set-tags"] <= 2
        assert [each.intent.kind for each in site.service.dead_letters()] == [IntentKind.REPAIR]


class TestIpv6:
    def test_interfaces_for_pods_have_a_prefix_of_it_before_pods_have_addresses(self, site: IpamSite) -> None:
        seen: list[str] = []
        site.cloud.watch = lambda operation, phase: seen.append(operation) if phase == "after" else None
        site.node(watermarks=TWELVE, ipv6=True)
        site.advance(5)
        assert seen.index("assign-ipv6-prefixes") < seen.index("assign-addresses")
        assert all(len(each.ipv6_prefixes) == 1 for each in site.cloud.interfaces().values())
        told = site.told["n1"].values()
        assert all(each.ipv6_gateway == "fd00:1::1" and len(each.ipv6_prefixes) == 1 for each in told)

    def test_a_type_without_prefixes_has_an_address_for_each_of_ipv4(self, site: IpamSite) -> None:
        site.node(type_="m4.large", ipv6=True)
        site.advance(5)
        assert (len(first(site).addresses), len(first(site).ipv6_addresses)) == (8, 8)

    def test_a_node_that_asks_for_it_later_gets_it(self, site: IpamSite) -> None:
        spec = site.node()
        site.advance(5)
        site.run(site.service.announce(replace(spec, ipv6=True), Usage()))
        site.advance(40)
        assert len(first(site).ipv6_prefixes) == 1

    def test_a_subnet_without_a_range_gives_ipv4_alone(self, ipam_site: IpamSite) -> None:
        ipam_site.node(ipv6=True)
        ipam_site.advance(5)
        assert len(ipam_site.addresses()) == 8
        assert ipam_site.cloud.calls["assign-ipv6-prefixes"] == 0

    def test_a_worker_killed_behind_the_call_brings_no_second_prefix(self, site: IpamSite) -> None:
        def watch(operation: str, phase: str) -> None:
            if (operation, phase) == ("assign-ipv6-prefixes", "after"):
                site.cloud.watch = None
                raise Killed

        site.node(ipv6=True)
        site.cloud.watch = watch
        with pytest.raises(Killed):
            site.work()
        site.advance(120)
        assert len(first(site).ipv6_prefixes) == 1
        assert len(site.addresses()) == 8


WANTED = {"pool": "egress"}


class TestPublicAddress:
    def add(self, site: IpamSite, *ids: str, interface_id: str = "", tags: dict[str, str] | None = None) -> None:
        for number, id in enumerate(ids):
            site.cloud.add_public_address(PublicAddress(id, f"192.0.2.{number}", interface_id, tags or WANTED))

    def associated(self, site: IpamSite) -> dict[str, str]:
        return {each.id: each.interface_id for each in site.cloud.public_addresses(tags={}) if each.interface_id}

    def test_a_node_takes_one_out_of_those_with_the_tags_and_keeps_it(self, site: IpamSite) -> None:
        self.add(site, "other", tags={"pool": "else"})
        self.add(site, "one", "two")
        site.node(public_address_tags=WANTED)
        site.advance(700)
        assert list(self.associated(site).values()) == [first(site).id]
        assert "other" not in self.associated(site)
        assert site.cloud.calls["associate-public-address"] == 1

    def test_one_that_leads_elsewhere_is_not_taken_and_what_comes_free_later_is(self, site: IpamSite) -> None:
        self.add(site, "theirs", interface_id="eni-of-somebody")
        site.node(public_address_tags=WANTED)
        site.advance(30)
        assert self.associated(site) == {"theirs": "eni-of-somebody"}
        assert any(
            "no public address with tags pool=egress is free" in each.why for each in site.service.dead_letters()
        )
        self.add(site, "free")
        site.advance(700)
        assert self.associated(site)["free"] == first(site).id

    def test_two_nodes_have_one_each(self, site: IpamSite) -> None:
        self.add(site, "one", "two")
        site.node("n1", public_address_tags=WANTED)
        site.node("n2", public_address_tags=WANTED)
        site.advance(60)
        assert len(set(self.associated(site).values())) == 2

    @pytest.mark.parametrize("after", [False, True])
    def test_a_cut_call_takes_no_second_one(self, site: IpamSite, after: bool) -> None:
        self.add(site, "one", "two", "three")
        site.node(public_address_tags=WANTED)
        site.cloud.fail("associate-public-address", Unavailable("cut"), after_effect=after)
        site.advance(120)
        assert list(self.associated(site).values()) == [first(site).id]
