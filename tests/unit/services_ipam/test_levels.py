"""Levels, policies and marks between messages and the domain; a node that says what cannot be is told so."""

from __future__ import annotations

import pytest

from ipam.degradation import Degradation
from ipam.errors import InvalidInput
from ipam.model import NodeSpec, Policy
from ipam.views import LevelView
from services.api.ipam.convert import node_spec_from, node_spec_to, policy_from, policy_to
from services.api.ipam.v1 import ipam_pb2 as pb
from services.ipam.convert import LEVELS, level_from, level_to
from services.ipam.reports import check_labels
from services.ipam.reports import node_spec_from as checked


@pytest.mark.parametrize("level", Degradation)
def test_each_level_goes_there_and_back(level: Degradation) -> None:
    assert level_from(LEVELS[level]) is level
    told = level_to(LevelView(level, level, Degradation.NORMAL, "by hand", 12.0))
    assert (told.level, told.why, told.until.seconds) == (LEVELS[level], "by hand", 12)
    assert not level_to(LevelView()).HasField("until")


@pytest.mark.parametrize("number", [0, 99])
def test_no_level_is_no_level(number: int) -> None:
    with pytest.raises(InvalidInput, match="no level"):
        level_from(number)


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(warm_addresses=0), Policy(warm_interfaces=2, warm_up=7, follow_demand=True)]
)
def test_each_policy_goes_there_and_back(policy: Policy) -> None:
    assert policy_from(policy_to(policy), Policy()) == policy
    spec = NodeSpec("n", "i", policy=policy)
    assert node_spec_from(node_spec_to(spec), NodeSpec("", "")) == spec


def test_a_nodes_own_target_takes_the_place_of_the_services() -> None:
    service = Policy(warm_prefixes=2, warm_up=9)
    assert policy_from(pb.Policy(warm_addresses=0), service) == Policy(warm_addresses=0, warm_up=9)
    assert policy_from(pb.Policy(), service) == service


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (pb.Policy(warm_addresses=1, warm_interfaces=1), "node.policy.warm_interfaces"),
        (pb.Policy(warm_up=1 << 20), "node.policy.warm_up"),
    ],
)
def test_a_policy_that_cannot_be_is_named(policy: pb.Policy, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(pb.NodeSpec(name="n", instance_id="i", policy=policy), NodeSpec("", ""))
    assert caught.value.field == field


def test_labels_are_checked_before_rules_are_looked_up() -> None:
    with pytest.raises(InvalidInput):
        check_labels(pb.NodeSpec(name="n", labels={"a": "x" * 1000}))
