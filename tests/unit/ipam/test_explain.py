"""For every "why has it no address" there is an answer, with what to do."""

from __future__ import annotations

from collections.abc import Callable

from ipam.model import Finding, Level, Subnet, Watermarks
from ipam.testing import FakeCloud, IpamSite

Sites = Callable[..., IpamSite]


def finding(site: IpamSite, subject: str, node: str = "n1") -> Finding:
    return next(each for each in site.service.explain(node) if each.subject == subject)


def test_all_is_well(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    assert {each.level for each in ipam_site.service.explain("n1")} == {Level.OK}
    assert "between its marks" in finding(ipam_site, "watermark").message


def test_no_worker_takes_the_intent(ipam_site: IpamSite) -> None:
    ipam_site.node()
    said = finding(ipam_site, "intent")
    assert said.level is Level.WAITING
    assert "workers" in said.remedy


def test_a_mild_deficit_waits(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.report(in_use=frozenset(ipam_site.addresses()[:2]))
    said = finding(ipam_site, "watermark")
    assert said.level is Level.WAITING
    assert "2 below the lower mark" in said.message


def test_the_instance_is_full(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=Watermarks(pre_allocate=100))
    ipam_site.work()
    assert len(ipam_site.addresses()) == 27
    said = finding(ipam_site, "limits")
    assert said.level is Level.PROBLEM
    assert "m5.large" in said.message
    assert said.remedy
    assert ipam_site.service.status().nodes_at_capacity == 1
    assert not [each for each in ipam_site.service.intents() if each.node], "nothing is tried in vain"


def test_the_subnets_are_full(ipam_sites: Sites) -> None:
    site = ipam_sites(cloud=FakeCloud(subnets=[Subnet("subnet-a", "10.0.0.0/28", "zone-a", "vpc-1", 0)]))
    site.tick()
    site.node(watermarks=Watermarks(pre_allocate=20))
    site.advance(10)
    said = finding(site, "subnet")
    assert said.level is Level.PROBLEM
    assert "subnet" in said.remedy


def test_the_instance_does_not_exist(ipam_site: IpamSite) -> None:
    spec = ipam_site.node()
    ipam_site.cloud.terminate(spec.instance_id)
    ipam_site.work()
    said = finding(ipam_site, "node")
    assert said.level is Level.PROBLEM
    assert spec.instance_id in said.message


def test_a_node_that_is_away(ipam_site: IpamSite) -> None:
    ipam_site.node()
    ipam_site.work()
    ipam_site.run(ipam_site.service.disconnected("n1"))
    assert "not connected" in finding(ipam_site, "node").message
    ipam_site.new_service()
    assert "has not reported" in finding(ipam_site, "node").message


def test_max_allocate_is_reached(ipam_site: IpamSite) -> None:
    ipam_site.node(watermarks=Watermarks(pre_allocate=8, max_allocate=4))
    ipam_site.work()
    assert len(ipam_site.addresses()) == 4
    ipam_site.report(in_use=frozenset(ipam_site.addresses()), pending_pods=1)
    ipam_site.work()
    assert any("max_allocate 4 is reached" in each.message for each in ipam_site.service.explain("n1"))
