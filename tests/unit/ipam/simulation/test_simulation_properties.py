"""What holds at every event of every workload."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipam.config import IpamConfig
from ipam.model import Limits, Policy, Watermarks, members
from ipam.simulation import account
from ipam.simulation.clouds import ALIBABA, AWS, AZURE
from ipam.simulation.engine import Simulation, simulate
from ipam.simulation.model import CallRate, CloudRules, Group, PodStream, SubnetRule, Variant, Workload
from services.worker import buckets

TYPES = {"small": Limits("small", 3, 4), "prefix": Limits("prefix", 3, 6, prefixes=True)}
THROTTLE = CallRate(2.0, 5.0)


def rules(cloud: CloudRules) -> CloudRules:
    return replace(cloud, types=TYPES, throttle=THROTTLE)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    streams = tuple(
        PodStream(
            standing=draw(st.integers(0, 2)), per_minute=draw(st.sampled_from([0.0, 0.5, 3.0])),
            burst_size=draw(st.sampled_from([0, 3, 8])), burst_every_s=draw(st.sampled_from([120.0, 900.0])),
            together=draw(st.booleans()), lifetime_s=draw(st.sampled_from([5.0, 60.0, 600.0])),
            lifetime=draw(st.sampled_from(["fixed", "exponential"])),
        )
        for _ in range(draw(st.integers(1, 2)))
    )  # fmt: skip
    groups = (Group("g", draw(st.sampled_from(list(TYPES))), nodes=draw(st.integers(1, 4)), pods=streams),)
    small = draw(st.booleans())
    subnets = (SubnetRule("s", "10.0.0.0/26", "a", taken=draw(st.integers(0, 40))),) if small else ()
    cloud = draw(st.sampled_from([AWS, AZURE, ALIBABA]))
    return Workload("w", rules(cloud), groups, duration_s=2400.0, seed=draw(st.integers(0, 99)), subnets=subnets)


@st.composite
def variants(draw: st.DrawFn) -> Variant:
    config = IpamConfig(
        "1", "r", watermarks=Watermarks(draw(st.integers(0, 4)), draw(st.integers(0, 4)), 0, draw(st.integers(0, 2))),
        policy=Policy(follow_demand=draw(st.booleans()), warm_up=draw(st.sampled_from([0, 3]))),
        release_delay_s=draw(st.sampled_from([5.0, 60.0])), release_batch=draw(st.sampled_from([0, 2])),
        release_interfaces=draw(st.booleans()), coalesce_s=draw(st.sampled_from([0.0, 10.0])),
    )  # fmt: skip
    return Variant("v", config, prefix_delegation=draw(st.booleans()), use_primary_address=draw(st.booleans()),
                   budget=CallRate(draw(st.sampled_from([1.0, 20.0])), 4.0), workers=draw(st.sampled_from([1, 8])),
                   cooldown_s=draw(st.sampled_from([0.0, 20.0])))  # fmt: skip


def check(sim: Simulation) -> None:
    """Every address is in one place, and nothing has come from nowhere or gone to nowhere."""
    seen: set[str] = set()
    of_ports: dict[str, int] = dict.fromkeys(sim.spaces, 0)
    used = 0
    for node in sim.nodes:
        places = [
            *(address for _, address in node.free), *node.leases.values(),
            *(address for _, address in node.cooling), *node.fenced,
        ]  # fmt: skip
        assert len(places) == len(set(places)) == node.held == len(node.homes), "an address has two places, or none"
        assert seen.isdisjoint(places), "two nodes have the same address"
        seen.update(places)
        assert node.held <= node.capacity
        used += len(node.leases)
        for port in node.ports:
            of_ports[port.subnet_id] += 1 + len(port.addresses) + sum(len(members(each)) for each in port.prefixes)
    held = sum(node.counted for node in sim.nodes)
    assert (sim.tally.held, sim.tally.used) == (held, used)
    assert held >= used
    under_way: dict[str, int] = dict.fromkeys(sim.spaces, 0)
    for work, (addresses, blocks) in sim._cloud._taken.items():
        planned = work.calls[0].planned
        subnet = planned.subnet_id if planned is not None else work.made.subnet_id if work.made else ""
        under_way[subnet] += len(addresses) + sum(len(members(each)) for each in blocks) + (work.made is not None)
    for name, space in sim.spaces.items():
        taken = space.size - space.rule.taken - space.free
        assert taken == of_ports[name] + under_way[name], "the subnet's count is not what nodes have"


@settings(max_examples=40, deadline=None)
@given(workloads(), variants())
def test_addresses_are_neither_doubled_nor_lost(work: Workload, variant: Variant) -> None:
    sim = Simulation(work, variant)
    number = 0
    while sim.step():
        number += 1
        if number % 3 == 0:
            check(sim)
    check(sim)


@settings(max_examples=15, deadline=None)
@given(workloads(), variants())
def test_calls_are_never_more_than_the_throttle_lets_through(work: Workload, variant: Variant) -> None:
    sim = Simulation(work, variant)
    taken: deque[float] = deque()
    admitted = sim._cloud.admitted

    def watch(work: object) -> None:
        now = sim.time.now
        taken.append(now)
        while taken[0] < now - 60.0:
            taken.popleft()
        for place, at in enumerate(taken):
            assert len(taken) - place <= THROTTLE.burst + THROTTLE.per_s * (now - at) + 1e-6
        admitted(work)  # type: ignore[arg-type]

    sim._cloud.admitted = watch  # type: ignore[method-assign]
    sim.run()


@settings(max_examples=10, deadline=None)
@given(workloads(), variants())
def test_the_same_seed_gives_the_same_result(work: Workload, variant: Variant) -> None:
    first = simulate(work, variant)
    assert simulate(work, variant) == first


def test_pods_are_the_same_under_every_setting_and_differ_by_seed() -> None:
    group = Group("g", "small", nodes=5, pods=(PodStream(per_minute=1.0, lifetime_s=60.0),))
    work = Workload("w", rules(AWS), (group,), duration_s=7200.0)
    few, many = (Variant("v", IpamConfig("1", "r", watermarks=Watermarks(each))) for each in (0, 8))
    assert simulate(work, few).pods == simulate(work, many).pods
    assert simulate(work, few).pods != simulate(replace(work, seed=2), few).pods


def test_the_account_has_the_rules_of_the_workers_budget() -> None:
    limits = buckets.BudgetLimits(buckets.Rate(1.0, 1.0), buckets.Rate(1.0, 1.0), buckets.Rate(1.0, 1.0))
    rules = (account.CUT_FACTOR, account.CUT_INTERVAL_S, account.GROWTH_SHARE, account.FLOOR_SHARE)
    assert (limits.cut_factor, limits.cut_interval_s, limits.growth_share, buckets._FLOOR_SHARE) == rules


@pytest.mark.parametrize(("cloud", "module", "name"), [
    (AWS, "ipam.providers.aws", "AwsProvider"), (AZURE, "ipam.providers.azure", "AzureProvider"),
    (ALIBABA, "ipam.providers.alibaba", "AlibabaProvider"),
])  # fmt: skip
def test_clouds_can_what_their_providers_can(cloud: CloudRules, module: str, name: str) -> None:
    assert cloud.capabilities == getattr(pytest.importorskip(module), name).capabilities


def test_types_hold_what_the_fake_clouds_say_they_hold() -> None:
    for cloud, package in ((AWS, "lab.fake_ec2"), (ALIBABA, "lab.fake_alibaba")):
        known = json.loads(resources.files(package).joinpath("instance_types.json").read_text())
        for name, limits in cloud.types.items():
            told = known.get(name)
            if told is not None:
                assert (limits.interfaces, limits.ipv4_per_interface) == (
                    told["interfaces"], told["ipv4_per_interface"],
                ), name  # fmt: skip
    sizes = json.loads(resources.files("lab.fake_azure").joinpath("sizes.json").read_text())
    assert {name: limits.interfaces for name, limits in AZURE.types.items()}.items() <= sizes.items()
