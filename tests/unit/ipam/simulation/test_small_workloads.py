"""Workloads so small that every call and every wait can be computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipam.config import IpamConfig
from ipam.model import Limits, Operation, Policy, Watermarks
from ipam.simulation.clouds import AWS
from ipam.simulation.engine import Simulation, simulate
from ipam.simulation.model import CallRate, CloudRules, Group, RecordedPod, SubnetRule, Variant, Workload
from ipam.simulation.variants import parse_variants

# One second for each call, so that sums can be read off; a reaction takes a tenth.
CLOUD = replace(
    AWS,
    types={"tiny": Limits("tiny", 2, 4), "wide": Limits("wide", 2, 30, prefixes=True)},
    seconds=dict.fromkeys(Operation, 1.0),
    throttle=CallRate(1000.0, 1000.0),
)

PLAIN = Policy()


def workload(*pods: tuple[float, float], cloud: CloudRules = CLOUD, hours: float = 1.0, **changes: Any) -> Workload:
    """One node with these pods; each is a start and an end."""
    recorded = tuple(RecordedPod("n", str(place), *span) for place, span in enumerate(pods))
    work = Workload("small", cloud, (Group("g", "wide", 0),), duration_s=hours * 3600.0, recorded=recorded)
    return replace(work, **changes)


def variant(pre: int = 0, *, name: str = "v", least: int = 0, policy: Policy = PLAIN, **changes: Any) -> Variant:
    config = {each: changes.pop(each) for each in list(changes) if each in IpamConfig.__dataclass_fields__}
    marks = Watermarks(pre_allocate=pre, min_allocate=least)
    fast = {"budget": CallRate(1000.0, 1000.0), "reaction_s": 0.1}
    return Variant(name, IpamConfig("1", "r", watermarks=marks, policy=policy, **config), **{**fast, **changes})


def test_three_pods_on_a_node_that_keeps_nothing_wait_for_a_call_each() -> None:
    result = simulate(workload((10, 900), (20, 900), (30, 900)), variant(0, release_excess=False))
    assert result.waits_s == pytest.approx([1.1, 1.1, 1.1])
    assert result.calls["assign-addresses"] == 3
    assert result.pods == 3


def test_pods_that_come_during_a_call_are_served_by_the_next_one_together() -> None:
    result = simulate(workload((10, 900), (10.5, 900), (10.6, 900)), variant(0, release_excess=False))
    # The first has its address at 11.1; the call for both others takes from 11.1 to 12.2.
    assert result.waits_s == pytest.approx([1.1, 1.6, 1.7])
    assert result.calls["assign-addresses"] == 2


def test_with_three_free_addresses_none_waits() -> None:
    result = simulate(workload((10, 900), (10.5, 900), (10.6, 900)), variant(3, release_excess=False))
    assert result.waits_s == []
    # At first, at once when fewer than three quarters are free, and for what started during that call.
    assert result.calls["assign-addresses"] == 3
    assert result.held_mean == pytest.approx(6.0, abs=0.02)  # three used, three free, but for the first seconds


def test_idle_addresses_are_the_area_between_held_and_used() -> None:
    # Four addresses from 1.1 s on, one of them used for 1,000 s, nothing given back.
    result = simulate(workload((100, 1100)), variant(0, least=4, release_excess=False))
    assert result.idle_address_hours == pytest.approx((4 * (3600 - 1.1) - 1000) / 3600)
    assert (result.idle_peak, result.calls["assign-addresses"]) == (4, 1)


def test_what_cooled_serves_the_next_pod_and_no_call_is_made() -> None:
    result = simulate(workload((10, 20), (60, 70)), variant(0, release_excess=False))
    assert result.waits_s == pytest.approx([1.1])
    result = simulate(workload((10, 20), (40, 70)), variant(0, release_excess=False, cooldown_s=30))
    # The second asks at 40, and has the first one's address not before 50, but a new one at 41.1.
    assert result.waits_s == pytest.approx([1.1, 1.1])


def test_an_excess_goes_after_its_delay_with_one_call() -> None:
    sim = Simulation(workload((10, 100)), variant(0, release_delay_s=180, cooldown_s=30))
    sim.run()
    assert sim.account.calls["unassign-addresses"] == 1
    assert sim.nodes[0].held == 0
    # Free again at 130, given back 180 s later: nothing is kept that it could be a part of, so it is no small excess.
    assert sim.result().idle_address_hours == pytest.approx((130 + 180 + 1.1 - 100) / 3600, rel=0.02)


def test_a_full_interface_is_followed_by_a_new_one_with_three_calls() -> None:
    pods = [(10.0 + place, 3000.0) for place in range(5)]
    work = workload(*pods, groups=(Group("g", "tiny", 0),))
    result = simulate(work, variant(0, release_excess=False))
    made = ("assign-addresses", "create-interface", "attach-interface", "protect-interface")
    assert [result.calls[name] for name in made] == [4, 1, 1, 1]
    # Each waits for what is under way, too; the fourth for three calls, and the fifth for one more.
    assert result.waits_s == pytest.approx([1.1, 1.2, 1.3, 3.4, 3.5])
    # Where creation says that it goes with its instance, they are two.
    protects = replace(CLOUD, capabilities=replace(CLOUD.capabilities, protects_on_create=True))
    result = simulate(replace(work, cloud=protects), variant(0, release_excess=False))
    assert [result.calls.get(name, 0) for name in made] == [4, 1, 1, 0]
    assert result.waits_s == pytest.approx([1.1, 1.2, 1.3, 2.4, 2.5])


def test_pods_beyond_what_an_instance_holds_are_never_served() -> None:
    pods = [(10.0 + 10 * place, 3000.0) for place in range(8)]
    result = simulate(workload(*pods, groups=(Group("g", "tiny", 0),)), variant(0))
    assert result.unserved == 2  # two interfaces with three secondary addresses each
    assert result.at_capacity == 1
    assert result.waits_s[-1] == pytest.approx(3000 - 70, abs=1)


def test_a_subnet_runs_out_at_the_moment_somebody_wants_more() -> None:
    subnet = SubnetRule("s", "10.0.0.0/28", "a", taken=7)  # 11 that can be had: 4 are left, one is the node's own
    pods = [(100.0 * place, 3600.0) for place in range(1, 6)]
    result = simulate(workload(*pods, subnets=(subnet,)), variant(0))
    assert result.unserved == 2
    found = result.subnets[0]
    assert (found.size, found.least_free) == (11, 0)
    assert found.exhausted_at_s == pytest.approx(400.1)
    assert found.refusals > 0


def test_the_budget_has_calls_wait_their_turn() -> None:
    groups = (Group("g", "wide", nodes=10),)
    work = replace(workload(), recorded=(), groups=groups)
    quick = Simulation(work, variant(0, least=2, budget=CallRate(1.0, 1.0)))
    quick.run()
    assert quick.account.calls["assign-addresses"] == 10
    # One call each second, the last one begun at 9 s: until then nine nodes had their two addresses.
    assert quick.result().idle_address_hours == pytest.approx(sum(2 * (3600 - at - 1) for at in range(10)) / 3600, 0.01)


def test_the_cloud_refuses_what_is_beyond_its_throttle() -> None:
    cloud = replace(CLOUD, throttle=CallRate(1.0, 3.0))
    work = replace(workload(cloud=cloud), recorded=(), groups=(Group("g", "wide", nodes=10),))
    result = simulate(work, variant(0, least=2))
    assert result.throttled > 0
    assert result.calls["assign-addresses"] == 10 + result.throttled
    assert result.held_mean == pytest.approx(20, rel=0.05)


def test_prefixes_bring_sixteen_addresses_with_a_call_and_leave_whole() -> None:
    pods = [(100.0, 500.0) for _ in range(20)]
    sim = Simulation(workload(*pods, hours=3), variant(1, prefix_delegation=True))
    sim.run()
    assert sim.account.calls["assign-prefixes"] == 2
    assert "assign-addresses" not in sim.account.calls
    assert sim.account.calls["unassign-prefixes"] >= 1
    assert sim.nodes[0].held == 16


def test_nothing_is_counted_before_measuring_begins() -> None:
    result = simulate(workload((10, 900), (2000, 2100)), variant(0, release_excess=False))
    later = simulate(workload((10, 900), (2000, 2100), measure_from_s=1000.0), variant(0, release_excess=False))
    assert (result.pods, later.pods) == (2, 1)
    assert "assign-addresses" not in later.calls


def test_whole_interfaces_go_when_nothing_on_them_is_used() -> None:
    pods = [(10.0, 600.0) for _ in range(6)]
    work = workload(*pods, hours=2, groups=(Group("g", "tiny", 0),))
    sim = Simulation(work, variant(0, release_interfaces=True))
    sim.run()
    assert (sim.account.calls["detach-interface"], sim.account.calls["delete-interface"]) == (1, 1)
    assert [port.index for port in sim.nodes[0].ports] == [0]


def test_a_warm_up_is_brought_once() -> None:
    sim = Simulation(workload((3000, 3500), hours=1), variant(0, policy=Policy(warm_up=5)))
    result = sim.run()
    assert sim.nodes[0].pool.warmed
    assert result.idle_peak == 5


def test_rules_by_labels_set_what_the_nodes_of_a_group_keep() -> None:
    """Three nodes under one setting: one plain, one with a mark of its own, one that keeps what it has."""
    text = """
    watermarks = { pre_allocate = 8, min_allocate = 3 }
    [[overrides]]
    match_labels = { class = "batch" }
    watermarks = { pre_allocate = 2 }
    subnet_tags = { tier = "batch" }
    [[overrides]]
    match_labels = { class = "batch", night = "yes" }
    policy = { warm_addresses = 5, follow_demand = false }
    release_excess = false
    """
    [several] = parse_variants(text, "v")
    groups = (
        Group("plain", "wide", 1),
        Group("batch", "wide", 1, labels={"class": "batch"}),
        Group("night", "wide", 1, labels={"class": "batch", "night": "yes"}),
    )
    sim = Simulation(Workload("rules", CLOUD, groups, duration_s=600.0), several)
    sim.run()
    assert {node.name: node.held for node in sim.nodes} == {"plain-0": 8, "batch-0": 3, "night-0": 5}
    assert [node.spec.release_excess for node in sim.nodes] == [True, True, False]


def test_one_group_can_follow_demand_beside_one_that_does_not() -> None:
    text = """
    watermarks = { pre_allocate = 4 }
    release_delay_s = 60
    [[overrides]]
    match_labels = { class = "quiet" }
    policy = { follow_demand = true }
    """
    [several] = parse_variants(text, "v")
    groups = (Group("fixed", "wide", 1), Group("quiet", "wide", 1, labels={"class": "quiet"}))
    sim = Simulation(Workload("rules", CLOUD, groups, duration_s=4 * 3600.0), several)
    sim.run()
    assert {node.name: node.held for node in sim.nodes} == {"fixed-0": 4, "quiet-0": 1}
