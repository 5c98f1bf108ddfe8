"""Which subnet a new interface gets: by ids, tags, the node's own, and of several by the node's policy."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.model import CloudInterface, Instance, NodeSpec, Subnet, SubnetPolicy
from ipam.selection import NEEDED_FOR_INTERFACE, choose_subnet
from ipam.testing import FakeCloud, IpamSite
from ipam.testing.site import CONFIG

INSTANCE = Instance("i-1", "m5.large", "a", "vpc-1", subnet_id="subnet-own")
SUBNETS = {
    id: Subnet(id, "10.0.0.0/24", zone, "vpc-1", 0)
    for id, zone in (("subnet-a", "a"), ("subnet-b", "a"), ("subnet-c", "a"), ("subnet-far", "b"))
}
IDS = tuple(SUBNETS)


def spec(policy: SubnetPolicy, *ids: str) -> NodeSpec:
    return NodeSpec("n1", "i-1", subnet_ids=ids, subnet_policy=policy)


@pytest.mark.parametrize(
    ("policy", "ids", "free", "blocked", "chosen"),
    [
        ("most-free", ("subnet-a", "subnet-b", "subnet-c"), (5, 9, 7), (), "subnet-b"),
        ("most-free", ("subnet-a", "subnet-b", "subnet-c"), (5, 9, 7), ("subnet-b",), "subnet-c"),
        ("ordered", ("subnet-c", "subnet-a", "subnet-b"), (5, 9, 7), (), "subnet-c"),
        ("ordered", ("subnet-c", "subnet-a", "subnet-b"), (5, 9, 1), (), "subnet-a"),
        ("ordered", ("subnet-c", "subnet-a", "subnet-b"), (5, 9, 7), ("subnet-c", "subnet-a"), "subnet-b"),
        ("ordered", ("subnet-far", "subnet-b"), (5, 9, 7), (), "subnet-b"),
        ("ordered", (), (5, 9, 7), (), "subnet-a"),
    ],
)
def test_the_policy_takes_one_of_several(
    policy: str, ids: tuple[str, ...], free: tuple[int, ...], blocked: tuple[str, ...], chosen: str
) -> None:
    left = dict(zip(IDS, (*free, 100), strict=True))
    found = choose_subnet(spec(SubnetPolicy(policy), *ids), INSTANCE, SUBNETS, left, frozenset(blocked))
    assert isinstance(found, Subnet)
    assert found.id == chosen


@pytest.mark.parametrize(
    ("more", "blocked", "said"),
    [
        (0, (), "all subnets in zone a are full: subnet-a, subnet-b, subnet-c"),
        (0, ("subnet-b",), "all subnets in zone a are full: subnet-a, subnet-c; passed over for now: subnet-b"),
        (0, IDS, "all subnets in zone a are full; passed over for now: subnet-a, subnet-b, subnet-c"),
        (4, (), "all subnets in zone a are full: subnet-0, subnet-1, subnet-2, subnet-3, subnet-a and 2 more"),
    ],
)
def test_a_refusal_names_the_subnets_that_are_full(more: int, blocked: tuple[str, ...], said: str) -> None:
    others = {f"subnet-{each}": Subnet(f"subnet-{each}", "10.0.0.0/24", "a", "vpc-1", 0) for each in range(more)}
    known = {**SUBNETS, **others}
    found = choose_subnet(spec(SubnetPolicy.MOST_FREE), INSTANCE, known, dict.fromkeys(known, 1), frozenset(blocked))
    assert found == said


@pytest.mark.parametrize("policy", SubnetPolicy)
def test_the_nodes_own_subnet_goes_before_any_policy(policy: SubnetPolicy) -> None:
    own = Subnet("subnet-own", "10.0.1.0/24", "a", "vpc-1", 0)
    left = {**dict.fromkeys(IDS, 100), "subnet-own": NEEDED_FOR_INTERFACE}
    found = choose_subnet(spec(policy), INSTANCE, {**SUBNETS, own.id: own}, left, frozenset())
    assert found == own


def test_random_spreads_nodes_and_interfaces_evenly_and_repeats_its_answer() -> None:
    left, wanted = dict.fromkeys(IDS, 100), spec(SubnetPolicy.RANDOM, *IDS)
    nodes: Counter[str] = Counter()
    for number in range(600):
        instance = replace(INSTANCE, id=f"i-{number}")
        answers = {str(choose_subnet(wanted, instance, SUBNETS, left, frozenset())) for _ in range(2)}
        assert len(answers) == 1
        nodes.update(answers)
    assert len(nodes) == 3
    assert min(nodes.values()) > 150, nodes
    card = CloudInterface("eni-1", "", "subnet-a", "vpc-1", "a", "10.0.0.9")
    grown = (replace(INSTANCE, interfaces=(card,) * count) for count in range(12))
    found = {str(choose_subnet(wanted, instance, SUBNETS, left, frozenset())) for instance in grown}
    assert len(found) == 3


@given(
    policy=st.sampled_from(SubnetPolicy),
    ids=st.lists(st.sampled_from(IDS), unique=True),
    free=st.lists(st.integers(0, 6), min_size=len(IDS), max_size=len(IDS)),
    blocked=st.frozensets(st.sampled_from(IDS)),
)
def test_whatever_the_policy_a_subnet_is_near_given_roomy_and_not_blocked(
    policy: SubnetPolicy, ids: list[str], free: list[int], blocked: frozenset[str]
) -> None:
    left = dict(zip(IDS, free, strict=True))
    could = [
        each.id
        for each in SUBNETS.values()
        if each.zone == "a" and (not ids or each.id in ids) and each.id not in blocked
        and left[each.id] >= NEEDED_FOR_INTERFACE
    ]  # fmt: skip
    found = choose_subnet(spec(policy, *ids), INSTANCE, SUBNETS, left, blocked)
    if not could:
        assert isinstance(found, str)
        return
    assert isinstance(found, Subnet)
    assert found.id in could
    if policy is SubnetPolicy.MOST_FREE:
        assert left[found.id] == max(left[each] for each in could)
    if policy is SubnetPolicy.ORDERED and ids:
        assert found.id == next(each for each in ids if each in could)


def test_nodes_fill_ordered_subnets_one_after_the_other() -> None:
    subnets = (
        Subnet("subnet-z", "10.0.0.0/28", "a", "vpc-1", 0),
        Subnet("subnet-y", "10.0.1.0/24", "a", "vpc-1", 0),
        Subnet("subnet-node", "10.0.2.0/24", "a", "vpc-1", 0),
    )
    config = replace(CONFIG, coalesce_s=0.0)
    site = IpamSite(config, FakeCloud(subnets=subnets))
    wanted = {
        "first_interface_index": 1, "subnet_ids": ("subnet-z", "subnet-y"), "subnet_policy": SubnetPolicy.ORDERED,
        "subnet_id": "subnet-node", "watermarks": replace(CONFIG.watermarks, pre_allocate=6),
    }  # fmt: skip
    try:
        for number in range(3):
            site.node(f"n{number}", **wanted)
            site.work()
            site.advance(10)
        used = {
            name: {each.subnet_id for each in site.told[name].values() if each.addresses} for name in ("n0", "n1", "n2")
        }
        assert used["n0"] == {"subnet-z"}
        assert used["n1"] | used["n2"] == {"subnet-z", "subnet-y"}
        assert all(len(site.addresses(name)) == 6 for name in used)
    finally:
        site.close()
