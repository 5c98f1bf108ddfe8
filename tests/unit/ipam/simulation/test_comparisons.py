"""What the simulator says of marks that follow demand, beside fixed ones: where they help, and where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipam.model import Watermarks
from ipam.simulation.engine import simulate
from ipam.simulation.examples import EXAMPLES, example, example_variants
from ipam.simulation.model import CallRate, Group, PodStream, Result, Workload

FIXED, DEMAND = example_variants()


def small(name: str, nodes: int, hours: float) -> Workload:
    work = example(name)
    groups = tuple(replace(each, nodes=nodes, join_over_s=60.0) for each in work.groups)
    return replace(work, groups=groups, duration_s=hours * 3600.0)


def both(work: Workload) -> tuple[Result, Result]:
    return simulate(work, FIXED), simulate(work, DEMAND)


@pytest.mark.parametrize(("name", "nodes", "hours"), [("web", 12, 24.0), ("cron", 10, 16.0)])
def test_fewer_idle_addresses_at_the_same_p99(name: str, nodes: int, hours: float) -> None:
    fixed, demand = both(small(name, nodes, hours))
    assert demand.pods == fixed.pods > 500
    assert demand.time_to_address_s(0.99) <= fixed.time_to_address_s(0.99)
    share = {"web": 0.5, "cron": 0.8}[name]
    assert demand.idle_mean <= share * fixed.idle_mean


def test_jobs_that_start_in_groups_hold_more_by_demand_and_make_fewer_calls() -> None:
    """Groups larger than the fixed mark: there the mark was too low, and demand raises it."""
    fixed, demand = both(small("batch", 6, 10.0))
    assert demand.idle_mean > fixed.idle_mean
    assert len(demand.waits_s) < len(fixed.waits_s)
    assert demand.mutating_calls < fixed.mutating_calls


def test_few_pods_cost_more_calls_by_demand() -> None:
    """What is not held is fetched: it is addresses against calls."""
    fixed, demand = both(small("web", 12, 24.0))
    assert demand.mutating_calls > fixed.mutating_calls


def test_every_example_can_be_read() -> None:
    for name in EXAMPLES:
        work = example(name)
        assert work.name == name
        assert work.measure_from_s < work.duration_s


def test_pods_that_wait_overtake_nodes_that_only_top_up() -> None:
    """As bench burst measures with the real service: on some nodes more pods start than there are free addresses."""

    def group(name: str, nodes: int, pods: int) -> Group:
        burst = PodStream(
            burst_size=pods, burst_every_s=1e6, burst_first_s=1200.0, burst_spread_s=5.0, together=True,
            lifetime_s=1e6, lifetime="fixed",
        )  # fmt: skip
        return Group(name, "m5.4xlarge", nodes, pods=(burst,))

    groups = (group("waits", 30, 12), group("tops-up", 90, 6))
    work = Workload("burst", example("web").cloud, groups, duration_s=3600.0, measure_from_s=600.0)
    ours = replace(FIXED, budget=CallRate(1.0, 5.0), workers=8)
    first, fifo = simulate(work, ours), simulate(work, replace(ours, fifo=True))
    assert first.mutating_calls == pytest.approx(fifo.mutating_calls, rel=0.1)
    assert first.time_to_address_s(0.99) <= 0.5 * fifo.time_to_address_s(0.99)


def test_pods_of_new_nodes_wait_for_their_own_call_not_for_the_spare_ones_of_others() -> None:
    """A node takes four calls, its pods one: thirty nodes at a call a second."""
    pods = PodStream(
        burst_size=4, burst_every_s=1e6, burst_first_s=0.5, together=True, lifetime_s=1e6, lifetime="fixed"
    )
    work = Workload("new", example("web").cloud, (Group("new", "m4.large", 30, pods=(pods,)),), duration_s=600.0)
    marks = Watermarks(pre_allocate=1, min_allocate=10)
    ours = replace(FIXED, budget=CallRate(1.0, 1.0), config=replace(FIXED.config, watermarks=marks))
    first, fifo = simulate(work, ours), simulate(work, replace(ours, fifo=True))
    assert first.time_to_address_s(0.99) <= 36.0  # some calls were made before pods came
    assert first.time_to_address_s(0.99) <= 0.5 * fifo.time_to_address_s(0.99)
