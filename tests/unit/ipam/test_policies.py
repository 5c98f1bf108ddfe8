"""Policies at work, told as stories: a whole site in simulated time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from ipam.degradation import Degradation
from ipam.model import IntentKind, NodeSpec, Policy, Usage, Watermarks
from ipam.overrides import Override
from ipam.service import SLICE
from ipam.testing import IpamSite
from ipam.testing.site import CONFIG

Sites = Callable[..., IpamSite]
WHOLE = replace(CONFIG, release_interfaces=True)


class Killed(BaseException):
    pass


def fence(site: IpamSite, *, used: frozenset[str] = frozenset(), node: str = "n1") -> int:
    """The node fences what is marked; returns how many."""
    marked = frozenset(address for address, state in site.states(node).items() if state in ("marked", "ready"))
    site.report(node, in_use=used, ready=marked)
    site.work()
    return len(marked)


def settle(site: IpamSite, *, used: frozenset[str] = frozenset(), seconds: float = 2000.0) -> None:
    """Time passes; the node answers each marking."""
    while seconds > 0:
        site.advance(20)
        seconds -= 20
        fence(site, used=used)


# zero warm


def test_with_nothing_warm_a_pod_waits_gets_its_address_and_nothing_is_kept(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node(policy=Policy(warm_addresses=0))
    site.advance(300)
    assert site.addresses() == [], "nothing is fetched for nobody"
    site.report(pending_pods=1)
    site.work()
    (address,) = site.addresses()
    site.report(in_use=frozenset({address}))
    site.advance(300)
    assert site.addresses() == [address]
    site.report(cooling=frozenset({address}))
    site.advance(300)
    assert site.addresses() == [address], "it cools: a packet may still be on its way to it"
    settle(site, seconds=600)
    assert site.addresses() == []


def test_with_nothing_warm_three_pods_at_once_get_three_addresses(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node(policy=Policy(warm_addresses=0))
    site.work()
    site.report(pending_pods=3)
    site.work()
    assert len(site.addresses()) == 3
    assert site.cloud.calls["assign-addresses"] + site.cloud.calls["create-interface"] == 1


# warm-up


def test_a_node_warms_up_once_also_when_the_service_restarts(ipam_sites: Sites) -> None:
    site = ipam_sites()
    spec = site.node(policy=Policy(warm_addresses=1, warm_up=6))
    site.work()
    assert len(site.addresses()) == 6
    settle(site)
    assert len(site.addresses()) == 1, "what nobody used is given back, and not fetched again"
    site.new_service()
    site.run(site.service.announce(spec, Usage()))
    site.advance(300)
    assert len(site.addresses()) == 1


def test_a_warm_up_beyond_what_the_instance_holds_ends_all_the_same(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node(policy=Policy(warm_addresses=1, warm_up=500))
    site.advance(60)
    assert len(site.addresses()) == 27
    assert "warming" not in site.service.pool("n1").marks_why


# interfaces


def test_warm_interfaces_are_filled_whole_and_given_back_whole(ipam_sites: Sites) -> None:
    site = ipam_sites(WHOLE)
    site.node(policy=Policy(warm_interfaces=1))
    site.advance(60)
    first = site.addresses()
    assert len(first) == 9
    used = frozenset(first[:1])
    site.report(in_use=used)
    site.advance(60)
    assert len(site.addresses()) == 18, "one pod, and an interface's worth is free again"
    settle(site, used=used, seconds=900)
    assert len(site.addresses()) == 18
    site.report()
    settle(site)
    assert len(site.addresses()) == 9
    assert site.cloud.calls["delete-interface"] == 1
    assert site.cloud.calls["unassign-addresses"] == 0, "in one piece"


def test_an_interface_that_is_used_again_in_the_middle_stays(ipam_sites: Sites) -> None:
    site = ipam_sites(WHOLE)
    site.node(watermarks=Watermarks(9))
    site.work()
    site.report(in_use=frozenset(site.addresses()))
    site.advance(60)
    site.report(in_use=frozenset(site.addresses()[:1]))
    site.advance(200)
    marked = frozenset(address for address, state in site.states().items() if state == "marked")
    assert marked
    taken = sorted(marked)[0]
    site.report(in_use=frozenset({taken}), ready=marked - {taken}, refused=frozenset({taken}))
    site.advance(20)
    assert taken in site.addresses()
    assert site.cloud.calls["detach-interface"] == 0


@pytest.mark.parametrize("operation", ["detach-interface", "delete-interface"])
@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_worker_killed_while_it_dismantles_leaves_no_interface_behind(
    ipam_sites: Sites, operation: str, phase: str
) -> None:
    site = ipam_sites(replace(WHOLE, lease_s=30.0))
    site.node(policy=Policy(warm_addresses=0))
    site.report(pending_pods=12)
    site.work()
    site.advance(60)
    assert len(site.told["n1"]) == 2

    def die(called: str, at: str) -> None:
        if (called, at) == (operation, phase):
            site.cloud.watch = None
            raise Killed

    site.cloud.watch = die
    with pytest.raises(Killed):
        settle(site)
    settle(site)
    assert site.addresses() == []
    assert [each.device_index for each in site.cloud.interfaces().values()] == [0]


# batches


def test_an_idle_node_gives_back_in_batches_spread_over_time(ipam_sites: Sites) -> None:
    site = ipam_sites(release_batch=3, release_interval_s=60.0)
    site.node(watermarks=Watermarks(2))
    site.work()
    site.report(pending_pods=14)
    site.work()
    start = len(site.addresses())
    left = [start]
    at = [0.0]
    for step in range(200):
        site.advance(5)
        fence(site)
        if len(site.addresses()) != left[-1]:
            left.append(len(site.addresses()))
            at.append(step * 5.0)
    assert left[-1] == 2
    assert all(before - after <= 3 for before, after in itertools.pairwise(left))
    pauses = [later - sooner for sooner, later in itertools.pairwise(at[1:])]
    assert all(30.0 <= pause <= 100.0 for pause in pauses)
    assert len(set(pauses)) > 1, "not in step"


# demand


def test_marks_follow_what_a_node_does(ipam_sites: Sites) -> None:
    site = ipam_sites(coalesce_s=0.0)
    site.node(policy=Policy(follow_demand=True))
    site.advance(60)
    assert len(site.addresses()) == 8, "nothing is known yet: the configured mark"
    settle(site, seconds=4000)
    view = site.service.pool("n1")
    assert (view.marks.pre_allocate, len(site.addresses())) == (1, 1)
    assert "no pod started" in view.marks_why
    for _ in range(5):
        site.report(pending_pods=5)
        site.work()
        site.report(in_use=frozenset(site.addresses()[:5]))
        site.advance(120)
        fence(site, used=frozenset())
        site.advance(120)
    view = site.service.pool("n1")
    assert 5 <= view.marks.pre_allocate <= 6
    assert "lately" in view.marks_why


# overrides


def test_explain_names_the_rules_and_the_marks(ipam_sites: Sites) -> None:
    rule = Override("small", {"class": "small"}, {"pre_allocate": 1})
    site = ipam_sites(overrides=(rule,))
    site.node(labels={"class": "small"}, watermarks=Watermarks(1), policy=Policy(warm_up=3))
    site.work()
    said = [finding.message for finding in site.service.explain("n1")]
    assert "overrides by its labels: small" in said
    assert site.service.pool("n1").overrides == ("small",)
    assert any("1 addresses are kept free" in message for message in said)


# levels


def set_level(site: IpamSite, level: Degradation, lasts_s: float = 0.0) -> None:
    site.run(site.service.set_level(level, lasts_s=lasts_s, why="a test"))


def test_without_releases_addresses_still_come_and_none_goes(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node()
    site.work()
    site.report(in_use=frozenset(site.addresses()))
    site.advance(60)
    set_level(site, Degradation.NO_RELEASE, lasts_s=3600)
    site.report()
    settle(site, seconds=1500)
    assert len(site.addresses()) == 16
    site.report(in_use=frozenset(site.addresses()), pending_pods=2)
    site.work()
    assert len(site.addresses()) > 16
    site.report()
    settle(site, seconds=4000)
    assert len(site.addresses()) == 8, "the level ended by itself, and what was left out was done"
    assert site.service.status().level.level is Degradation.NORMAL


def test_a_release_under_way_is_stopped_and_what_was_fenced_is_available_again(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node()
    site.work()
    site.report(in_use=frozenset(site.addresses()))
    site.advance(60)
    site.report()
    site.advance(200)
    marked = frozenset(address for address, state in site.states().items() if state == "marked")
    assert marked
    site.report(ready=marked)
    set_level(site, Degradation.NO_RELEASE)
    site.advance(60)
    assert set(site.states().values()) == {"available"}
    assert site.cloud.calls["unassign-addresses"] == 0


def test_without_changes_the_cloud_is_only_read_and_a_pod_waits(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node()
    site.work()
    set_level(site, Degradation.NO_MUTATION)
    before = site.cloud.calls.copy()
    site.report(in_use=frozenset(site.addresses()), pending_pods=3)
    site.advance(300)
    changed = {name for name, count in site.cloud.calls.items() if count != before[name]}
    assert changed
    assert not any(name.startswith(("assign", "create", "attach", "unassign")) for name in changed)
    assert any(finding.subject == "level" for finding in site.service.explain("n1"))
    set_level(site, Degradation.NORMAL)
    site.advance(20)
    assert len(site.addresses()) >= 11


def test_frozen_nothing_is_called_at_all_and_a_new_leader_knows_it(ipam_sites: Sites) -> None:
    site = ipam_sites()
    spec = site.node()
    site.work()
    set_level(site, Degradation.FROZEN, lasts_s=1000)
    before = site.cloud.calls.copy()
    site.report(in_use=frozenset(site.addresses()), pending_pods=3)
    site.advance(300)
    site.new_service()
    site.run(site.service.announce(spec, Usage(pending_pods=3, in_use=frozenset(site.addresses()))))
    site.advance(300)
    assert site.cloud.calls == before
    assert site.service.status().level.why == "by hand: a test"
    site.advance(500)
    assert len(site.addresses()) >= 11


def test_a_worker_in_the_middle_stops_before_its_next_call(ipam_sites: Sites) -> None:
    site = ipam_sites()
    site.node()
    intent_id = next(each.id for each in site.service.intents() if each.kind is IntentKind.ALLOCATE)
    claim = site.run(site.service.claim(intent_id, "w"))
    assert claim is not None
    set_level(site, Degradation.NO_MUTATION)
    assert site.run(site.service.claim(intent_id, "other")) is None
    site.advance(120)
    assert site.addresses() == []
    set_level(site, Degradation.NORMAL)
    site.advance(120)
    assert len(site.addresses()) == 8


@pytest.mark.parametrize("ends", ["by hand", "by itself"])
def test_what_was_left_out_is_taken_up_at_once_when_the_level_ends(ipam_sites: Sites, ends: str) -> None:
    site = ipam_sites()
    site.node(usage=Usage(pending_pods=1))
    set_level(site, Degradation.FROZEN, lasts_s=1000)
    site.advance(999)  # the sweeper has offered the intent in vain, ever more seldom
    assert site.addresses() == []
    if ends == "by hand":
        set_level(site, Degradation.NORMAL)
    site.advance(2, step_s=1)
    assert len(site.addresses()) >= 1, "a pod waits"


def test_a_subnet_that_is_passed_over_no_longer_is_told_so_though_nobody_asks(ipam_sites: Sites) -> None:
    site = ipam_sites(block_s=60.0, reclaim=False)
    site.node()
    site.work()
    taken = site.cloud.drain("subnet-a")
    site.report(in_use=frozenset(site.addresses()), pending_pods=1)
    site.work()
    assert [each.blocked_until_at > 0 for each in site.service.status().subnets if each.id == "subnet-a"] == [True]
    site.report()  # and it lacks nothing any more
    site.cloud.refill("subnet-a", taken)
    site.advance(90)
    assert [each.blocked_until_at > 0 for each in site.service.status().subnets if each.id == "subnet-a"] == [False]
    obtainable = site.service.pool("n1").obtainable
    assert obtainable is not None
    assert obtainable.addresses > 0


def test_when_all_pools_are_due_at_once_nodes_are_heard_in_between(ipam_sites: Sites) -> None:
    site = ipam_sites()
    term = site.service._term
    assert term is not None
    for number in range(10 * SLICE):
        term.fleet.put_node(NodeSpec(f"n{number}", f"i-{number}"))

    async def tick() -> int:
        await site.service.set_level(Degradation.NO_RELEASE)
        turns, ticking = 0, asyncio.create_task(site.service.tick())
        while not ticking.done():
            await asyncio.sleep(0)
            turns += 1
        await ticking
        return turns

    assert site.run(tick()) >= 10
