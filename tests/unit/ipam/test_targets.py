"""Warm targets as marks: what a node ends up with for a number of pods, and what holds for all numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.model import Limits, NodeSpec, Policy, Watermarks
from ipam.targets import Units, ask_units, excess_units, marks_of, target, unit_of, units, warming
from ipam.watermarks import needed

LARGE = Limits("m5.large", 3, 10, prefixes=True)
SIZES = Units(16, 9)


def held(policy: Policy, used: int, sizes: Units = SIZES, least: int = 0) -> int:
    """Addresses that a node with nothing asks for until it asks no more, `used` of them in use."""
    marks = marks_of(Watermarks(min_allocate=least), policy, sizes)
    attached = 0
    for _ in range(100):
        pending = max(used - attached, 0)
        more = ask_units(attached, min(used, attached), pending, marks, 1000, unit_of(policy, sizes))
        if not more:
            return attached
        attached += more
    raise AssertionError("it never has enough")


@pytest.mark.parametrize(
    ("policy", "used", "least", "expected"),
    [
        pytest.param(Policy(), 3, 0, 11, id="no target: the marks stand"),
        pytest.param(Policy(warm_addresses=2), 3, 0, 5, id="two free addresses"),
        pytest.param(Policy(warm_addresses=2), 0, 10, 10, id="two free ones, ten in all"),
        pytest.param(Policy(warm_addresses=0), 3, 0, 3, id="zero warm: none beyond those in use"),
        pytest.param(Policy(warm_addresses=0), 0, 0, 0, id="zero warm: an idle node holds nothing"),
        pytest.param(Policy(warm_prefixes=1), 0, 0, 16, id="a prefix"),
        pytest.param(Policy(warm_interfaces=1), 0, 0, 9, id="an interface"),
        pytest.param(Policy(warm_interfaces=1), 1, 0, 18, id="an interface, beside the one that is begun"),
        pytest.param(Policy(warm_interfaces=0), 5, 0, 9, id="no warm interface beside the one that is begun"),
        pytest.param(Policy(warm_interfaces=0), 0, 0, 0, id="no interface at all"),
    ],
)
def test_what_a_node_holds(policy: Policy, used: int, least: int, expected: int) -> None:
    assert held(policy, used, least=least) == expected


@pytest.mark.parametrize(
    ("spec", "limits", "expected"),
    [
        (NodeSpec("n", "i"), None, Units(16, 0)),
        (NodeSpec("n", "i"), LARGE, Units(16, 9)),
        (NodeSpec("n", "i", prefix_delegation=True), LARGE, Units(16, 144)),
        (NodeSpec("n", "i", prefix_delegation=True), Limits("t2.large", 3, 12), Units(16, 11)),
    ],
)
def test_units_are_the_instance_types(spec: NodeSpec, limits: Limits | None, expected: Units) -> None:
    assert units(spec, limits) == expected


def test_a_node_warms_up_within_its_most() -> None:
    assert warming(Watermarks(8, min_allocate=2), Policy(warm_up=20)) == Watermarks(8, min_allocate=20)
    assert warming(Watermarks(8, min_allocate=2, max_allocate=10), Policy(warm_up=20)).min_allocate == 10
    assert warming(Watermarks(8, min_allocate=30), Policy(warm_up=20)).min_allocate == 30


POLICIES = st.one_of(
    st.builds(Policy, warm_addresses=st.integers(0, 40)),
    st.builds(Policy, warm_prefixes=st.integers(0, 5)),
    st.builds(Policy, warm_interfaces=st.integers(0, 4)),
)


@given(POLICIES, st.integers(0, 200), st.integers(0, 30), st.integers(1, 49))
def test_the_target_is_met_and_a_unit_more_is_given_back(policy: Policy, used: int, least: int, interface: int) -> None:
    sizes = Units(16, interface)
    marks = marks_of(Watermarks(min_allocate=least), policy, sizes)
    kept = held(policy, used, sizes, least)
    unit = unit_of(policy, sizes)
    wanted = getattr(policy, target(policy)) * unit
    lower = max(used + wanted, least)
    assert lower <= kept < lower + unit
    assert needed(kept, used, marks) == excess_units(kept, used, marks, unit) == 0, "and it rests there"
    surplus = excess_units(kept + unit, used, marks, unit)
    assert surplus >= 1
    assert needed(kept + unit - surplus, used, marks) == 0
