"""Pods of one node wait while the subnet is empty and other nodes keep addresses free: those change hands."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from ipam import reclaim as reclaiming
from ipam.model import Subnet, Watermarks
from ipam.pools import Pool
from ipam.testing import FakeCloud, IpamSite

Sites = Callable[..., IpamSite]
SUBNET = Subnet("subnet-0", "10.0.0.0/28", "zone-a", "vpc-1", 0)  # 11 addresses


def crowded(ipam_sites: Sites, *, keeps: bool = False, **changes: object) -> IpamSite:
    """Two rich nodes that hold 4 addresses each within their marks, and a poor one that came too late: 3 are primary
    ones, and nothing is left."""
    site = ipam_sites(cloud=FakeCloud(subnets=[SUBNET]), coalesce_s=5.0, **changes)
    for name in ("rich-1", "rich-2"):
        release_excess = not (keeps and name == "rich-1")
        site.node(
            name, watermarks=Watermarks(pre_allocate=4), subnet_id="subnet-0", release_excess=release_excess
        )  # fmt: skip
        site.report(name)
        site.work()
    site.node("poor", watermarks=Watermarks(pre_allocate=2), subnet_id="subnet-0")
    site.work()
    site.advance(10)
    assert [len(site.addresses(each)) for each in ("rich-1", "rich-2", "poor")] == [4, 4, 0]
    return site


def answer(site: IpamSite, node: str, in_use: frozenset[str] = frozenset()) -> int:
    """The node fences what it is asked for; returns how many."""
    marked = frozenset(each for each, state in site.states(node).items() if state == "marked")
    site.report(node, in_use=in_use, ready=marked)
    return len(marked)


def settle(site: IpamSite, seconds: float = 40.0) -> None:
    for _ in range(int(seconds / 5)):
        for name in ("rich-1", "rich-2"):
            answer(site, name)
        site.work()
        site.advance(5)


def test_a_pod_that_waits_gets_what_another_node_keeps_free(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites)
    site.report("poor", pending_pods=2)
    site.work()
    settle(site)
    assert len(site.addresses("poor")) == 2
    assert len(site.addresses("rich-1")) + len(site.addresses("rich-2")) == 6
    assert min(len(site.addresses(each)) for each in ("rich-1", "rich-2")) >= 1


def test_nothing_is_asked_for_while_nobody_waits(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites)
    settle(site, 200)
    assert [len(site.addresses(each)) for each in ("rich-1", "rich-2", "poor")] == [4, 4, 0]


def test_what_is_used_stays_and_a_last_free_address_too(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites)
    used = frozenset(site.addresses("rich-1")[:3])
    site.report("rich-1", in_use=used)
    site.report("poor", pending_pods=8)
    site.work()
    for _ in range(10):
        answer(site, "rich-1", used)
        answer(site, "rich-2")
        site.work()
        site.advance(5)
    assert set(site.addresses("rich-1")) >= used
    assert len(site.addresses("rich-1")) == 4
    assert len(site.addresses("rich-2")) == 1
    assert len(site.addresses("poor")) == 3


def test_a_node_that_keeps_what_it_has_is_not_asked(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites, keeps=True)
    site.report("poor", pending_pods=8)
    site.work()
    settle(site)
    assert len(site.addresses("rich-1")) == 4
    assert len(site.addresses("rich-2")) == 1


def test_it_can_be_switched_off(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites, reclaim=False)
    site.report("poor", pending_pods=2)
    site.work()
    settle(site, 100)
    assert site.addresses("poor") == []


def test_a_giver_whose_own_pods_come_fetches_again(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites)
    site.report("poor", pending_pods=2)
    site.work()
    settle(site)
    held = frozenset(site.addresses("poor"))
    site.report("poor", in_use=held)
    rich = min(("rich-1", "rich-2"), key=lambda each: len(site.addresses(each)))
    own = frozenset(site.addresses(rich))
    site.report(rich, in_use=own, pending_pods=1)
    other = "rich-2" if rich == "rich-1" else "rich-1"
    for _ in range(10):
        answer(site, other)
        site.work()
        site.advance(5)
    assert len(site.addresses(rich)) == len(own) + 1, "the third node has some to spare"
    assert set(site.addresses("poor")) >= held


def test_a_giver_fetches_again_as_soon_as_there_is_enough_for_all(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites)
    site.report("poor", pending_pods=2)
    site.work()
    settle(site)
    site.report("poor", in_use=frozenset(site.addresses("poor")))
    site.cloud.add_subnet(Subnet("subnet-1", "10.0.1.0/24", "zone-a", "vpc-1", 0))
    site.run(site.service.resync())
    settle(site, 40)
    assert [len(site.addresses(each)) for each in ("rich-1", "rich-2")] == [4, 4], "without waiting for two minutes"


def crowd(ipam_sites: Sites, poor: int) -> tuple[IpamSite, list[str]]:
    """One rich node that keeps 6 free addresses, and nodes that came too late, in a subnet that is empty."""
    site = ipam_sites(cloud=FakeCloud(subnets=[replace(SUBNET, cidr="10.0.0.0/27")]), coalesce_s=5.0)
    site.node("rich-1", watermarks=Watermarks(pre_allocate=6), subnet_id="subnet-0")
    site.report("rich-1")
    site.work()
    names = [f"poor-{number}" for number in range(poor)]
    for name in names:
        site.node(name, watermarks=Watermarks(pre_allocate=0), subnet_id="subnet-0")
        site.report(name)
    site.work()
    site.cloud.drain("subnet-0")
    assert len(site.addresses("rich-1")) == 6
    return site, names


def test_as_much_is_asked_for_as_all_who_wait_there_want(ipam_sites: Sites) -> None:
    site, names = crowd(ipam_sites, 3)
    for name in names:
        site.report(name, pending_pods=1)
    site.work()
    site.tick()
    assert sum(state == "marked" for state in site.states("rich-1").values()) == 3, (
        "in one round, not one after another"
    )


def test_who_can_give_no_more_is_not_waited_for(ipam_sites: Sites) -> None:
    site = crowded(ipam_sites)
    site.report("poor", pending_pods=1)
    site.work()
    site.tick()
    (asked,) = (each for each in ("rich-1", "rich-2") if "marked" in site.states(each).values())
    site.report(asked, in_use=frozenset(site.addresses(asked)))  # its own pods were faster
    other = "rich-2" if asked == "rich-1" else "rich-1"
    for _ in range(4):
        site.report("poor", pending_pods=1)
        answer(site, other)
        site.work()
        site.advance(5)
    assert len(site.addresses("poor")) == 1


def test_the_fleet_is_not_looked_through_with_each_report(ipam_sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    site, names = crowd(ipam_sites, 3)
    looks: list[str] = []
    spare = reclaiming.spare

    def look(pool: Pool, reach: Collection[str]) -> int:
        looks.append(pool.spec.name)
        return spare(pool, reach)

    monkeypatch.setattr(reclaiming, "spare", look)
    site.report("rich-1", in_use=frozenset(site.addresses("rich-1")))  # nobody has anything to give
    for _ in range(20):
        for name in names:
            site.report(name, pending_pods=1)
            site.work()
    assert 0 < len(looks) <= 2 * (1 + len(names)), "however often who waits says so"
