"""What the simulator says of marks that follow demand, beside fixed ones: where they help, and where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipam.model import Watermarks
from ipam.simulation.clouds import ALIBABA, AWS, AZURE
from ipam.simulation.engine import simulate
from ipam.simulation.examples import EXAMPLES, example, example_variants
from ipam.simulation.model import CallRate, CloudRules, Group, PodStream, Result, Workload

FIXED, DEMAND = example_variants()


def small(name: str, nodes: int, hours: float) -> Workload:
    work = example(name)
    groups = tuple(replace(each, nodes=nodes, join_over_s=60.0) for each in work.groups)
    return replace(work, groups=groups, duration_s=hours * 3600.0)


def both(work: Workload) -> tuple[Result, Result]:
    return simulate(work, FIXED), simulate(work, DEMAND)


def of_pods(cloud: CloudRules, kind: str, *pods: PodStream, hours: float = 12.0) -> Workload:
    return Workload("own", cloud, (Group("g", kind, 6, pods=pods, join_over_s=60.0),), hours * 3600.0, 7200.0)


BATCH = example("batch").groups[0].pods
ROLLOUTS = PodStream(burst_size=4, burst_every_s=600.0, burst_spread_s=60.0, lifetime_s=2400.0)
STREAM = PodStream(per_minute=10.0, lifetime_s=60.0)
# The fixed mark beside which demand stands is 8, or where pods would wait for that, one that was found for them.
WORKLOADS = [
    pytest.param(small("web", 12, 24.0), 8, 0.5, 0.6, id="few pods by day: next to nothing is kept"),
    pytest.param(small("cron", 10, 16.0), 8, 0.7, 1.0, id="groups by the hour that 8 is more than enough for"),
    pytest.param(small("batch", 10, 12.0), 8, 1.03, 1.0, id="groups that 8 is just enough for"),
    pytest.param(of_pods(AZURE, "Standard_D16s_v5", *BATCH), 13, 1.03, 1.0, id="a call takes 12 s: a group's are kept"),
    pytest.param(of_pods(ALIBABA, "ecs.g7.4xlarge", *BATCH), 10, 1.03, 1.0, id="a call takes somewhat longer"),
    pytest.param(of_pods(AWS, "m5.4xlarge", ROLLOUTS), 8, 0.6, 1.2, id="small groups, far between, cost some calls"),
    pytest.param(of_pods(AWS, "m5.4xlarge", STREAM, hours=6.0), 8, 0.9, 1.0, id="as many end as start, all the time"),
]


@pytest.mark.parametrize(("work", "mark", "idle", "calls"), WORKLOADS)
def test_demand_keeps_fewer_addresses_for_the_same_waits(work: Workload, mark: int, idle: float, calls: float) -> None:
    config = replace(FIXED.config, watermarks=Watermarks(pre_allocate=mark))
    fixed, demand = simulate(work, replace(FIXED, config=config)), simulate(work, DEMAND)
    assert demand.pods == fixed.pods > 500
    assert demand.time_to_address_s(0.99) <= fixed.time_to_address_s(0.99)
    assert len(demand.waits_s) <= 0.01 * demand.pods
    assert demand.idle_mean <= idle * fixed.idle_mean
    assert demand.mutating_calls <= calls * fixed.mutating_calls


def test_a_mark_that_is_too_small_for_the_groups_is_raised() -> None:
    """Rather than addresses, pods are what is spared."""
    work = of_pods(AZURE, "Standard_D16s_v5", *BATCH)
    fixed, demand = both(work)
    assert fixed.time_to_address_s(0.99) > 10.0
    assert demand.time_to_address_s(0.99) == 0.0
    assert demand.idle_mean > fixed.idle_mean


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
