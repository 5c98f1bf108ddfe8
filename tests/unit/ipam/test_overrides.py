"""Rules by labels: which match, which win, and that the node's own words go over them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.model import NodeSpec, Policy, Watermarks
from ipam.overrides import Override, matching, overridden
from services.api.ipam.convert import node_spec_from
from services.api.ipam.v1 import ipam_pb2 as pb

DEFAULTS = NodeSpec("", "", watermarks=Watermarks(8, 2), subnet_tags={"tier": "pods"}, security_group_ids=("sg-1",))
GPU = Override("gpu", {"class": "gpu"}, {"pre_allocate": 1}, {"warm_interfaces": 1}, {"subnet_ids": ("subnet-9",)})
DMZ = Override("dmz", {"zone": "dmz"}, {"pre_allocate": 4, "max_allocate": 20}, {"warm_addresses": 0})
RULES = (GPU, DMZ)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, []),
        ({"class": "cpu"}, []),
        ({"class": "gpu", "rack": "7"}, ["gpu"]),
        ({"class": "gpu", "zone": "dmz"}, ["gpu", "dmz"]),
    ],
)
def test_rules_match_nodes_with_all_their_labels(labels: dict[str, str], expected: list[str]) -> None:
    assert [rule.name for rule in matching(RULES, labels)] == expected


def test_a_rule_changes_what_it_names_and_nothing_else() -> None:
    spec = overridden(DEFAULTS, RULES, {"class": "gpu"})
    assert spec.watermarks == Watermarks(1, 2)
    assert spec.policy == Policy(warm_interfaces=1)
    assert (spec.subnet_ids, dict(spec.subnet_tags)) == (("subnet-9",), {}), "ids take the place of tags"
    assert spec.security_group_ids == ("sg-1",)
    assert overridden(DEFAULTS, RULES, {}) == DEFAULTS


def test_the_later_rule_wins_and_a_node_has_one_target() -> None:
    spec = overridden(DEFAULTS, RULES, {"class": "gpu", "zone": "dmz"})
    assert spec.watermarks == Watermarks(4, 2, 20)
    assert spec.policy == Policy(warm_addresses=0)


def test_the_nodes_own_words_go_over_rules() -> None:
    said = pb.NodeSpec(
        name="n1", instance_id="i-1", labels={"class": "gpu"}, subnet_ids=["subnet-1"],
        policy=pb.Policy(warm_addresses=3),
    )  # fmt: skip
    spec = node_spec_from(said, overridden(DEFAULTS, RULES, said.labels))
    assert spec.watermarks == Watermarks(1, 2), "it said nothing of marks"
    assert spec.policy == Policy(warm_addresses=3)
    assert spec.subnet_ids == ("subnet-1",)
    assert spec.labels == {"class": "gpu"}


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
RULE = st.builds(
    Override, st.text(max_size=3), LABELS, st.fixed_dictionaries({}, optional={"pre_allocate": st.integers(0, 50)})
)


@given(st.lists(RULE, max_size=5), LABELS)
def test_each_mark_is_that_of_the_last_rule_that_names_it(rules: list[Override], labels: dict[str, str]) -> None:
    named = [
        rule.watermarks["pre_allocate"]
        for rule in rules
        if "pre_allocate" in rule.watermarks and rule.match_labels.items() <= labels.items()
    ]
    assert overridden(DEFAULTS, rules, labels).watermarks.pre_allocate == (named[-1] if named else 8)
