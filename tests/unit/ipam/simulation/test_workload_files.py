"""Files of people: what is read out of them, and what is said of those that are wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ipam.errors import InvalidInput
from ipam.simulation.model import CallRate
from ipam.simulation.variants import parse_variants
from ipam.simulation.workload import parse_workload, read_workload

GOOD = """
cloud = "aws"
[[group]]
name = "web"
type = "m5.large"
nodes = 3
[[group.pods]]
per_minute = 1
"""


def test_a_workload_has_its_defaults() -> None:
    work = parse_workload(GOOD, "w")
    assert (work.duration_s, work.seed, work.groups[0].nodes, work.groups[0].zones) == (86400.0, 1, 3, ("a",))
    assert work.groups[0].pods[0].lifetime_s == 3600.0


def test_what_the_account_is_like_goes_over_what_the_cloud_is_like() -> None:
    text = (
        GOOD.replace("m5.large", "own.type")
        + """
[[type]]
name = "own.type"
interfaces = 2
ipv4_per_interface = 5
[rules]
throttle_per_s = 3
[rules.seconds]
attach-interface = 9
[[subnet]]
id = "s-1"
cidr = "10.0.0.0/24"
taken = 4
"""
    )
    work = parse_workload(text, "w")
    assert work.cloud.types["own.type"].interfaces == 2
    assert work.cloud.throttle == CallRate(3.0, 100.0)
    assert (work.cloud.seconds["attach-interface"], work.subnets[0].taken) == (9.0, 4)  # type: ignore[index]


@pytest.mark.parametrize(("old", "new", "field", "remedy"), [
    ('"aws"', '"ibm"', "cloud", "aws"),
    ("m5.large", "m9.huge", "group.web.type", "[[type]]"),
    ("nodes = 3", "nodes = 0", "group.web.nodes", "from 1"),
    ("nodes = 3", "nodes = 2.5", "group.web.nodes", "whole"),
    ("nodes = 3", "node = 3", "group.web.node", "did you mean nodes"),
    ("nodes = 3", "nodes = 999999", "group.web.nodes", "100000"),
    ("per_minute = 1", "per_minute = -1", "group.web.pods.1.per_minute", "from 0"),
    ("per_minute = 1", "per_minute = nan", "group.web.pods.1.per_minute", "number"),
    ("per_minute = 1", "per_minute = true", "group.web.pods.1.per_minute", "number"),
    ("per_minute = 1", "per_minute = 0", "group.web.pods.1.per_minute", "set one"),
    ("per_minute = 1", "per_minute = 1\nday = [1, 2]", "group.web.pods.1.day", "24"),
    ("per_minute = 1", "per_minute = 1\nlifetime = 'long'", "group.web.pods.1.lifetime", "exponential"),
    ("per_minute = 1", "per_minute = 1\n[[subnet]]\nid = 's'\ncidr = '10.0.0.1/24'", "subnet.s.cidr", "10.0.0.0/20"),
    ("per_minute = 1", "per_minute = 1\n[[subnet]]\nid = 's'\ncidr = '10.0.0.0/24'\nzone = 'b'",
     "group.web.zones", "b"),
    ("per_minute = 1", "per_minute = 1\n[[subnet]]\nid = 's'\ncidr = '10.0.0.0/24'\n[[subnet]]\nid = 't'\n"
     "cidr = '10.0.0.0/25'", "subnet.t.cidr", "own range"),
    ("per_minute = 1", "per_minute = 1\n[rules.seconds]\nfly = 1", "rules.seconds.fly", "attach-interface"),
    ('cloud = "aws"', 'cloud = "aws"\nmeasure_from_hours = 24', "measure_from_hours", "less"),
    ('cloud = "aws"', 'cloud = "aws"\nhours = 0', "hours", "from"),
    ('cloud = "aws"', 'cloud = ', "", "line"),
    ("[[group]]", "[group]", "group", "[[group]]"),
])  # fmt: skip
def test_what_is_wrong_is_named_with_a_remedy(old: str, new: str, field: str, remedy: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_workload(GOOD.replace(old, new), "w")
    assert caught.value.field == field
    assert remedy in caught.value.remedy


def recording(folder: Path, text: str, name: str = "pods.csv") -> Path:
    (folder / name).write_text(text)
    path = folder / "work.toml"
    path.write_text(f'cloud = "aws"\nrecorded = "{name}"\n[[group]]\nname = "all"\ntype = "m5.large"\n')
    return path


def test_recorded_pods_begin_at_the_midnight_before_the_first(tmp_path: Path) -> None:
    day = 86400 * 20000
    text = f"node,pod,start_s,end_s\nn2,b,{day + 7200},\nn1,a,{day + 3600},{day + 9000}\n"
    work = read_workload(recording(tmp_path, text))
    assert [(each.node, each.start_s, each.end_s) for each in work.recorded] == [
        ("n1", 3600, 9000), ("n2", 7200, 9000),
    ]  # fmt: skip
    assert work.duration_s == 9000
    lines = f'{{"node": "n1", "pod": "a", "start_s": {day + 3600}, "end_s": null}}\n'
    assert read_workload(recording(tmp_path, lines, "pods.jsonl")).recorded[0].start_s == 3600


@pytest.mark.parametrize(("text", "said"), [
    ("node,pod,start_s\nn,p,1\n", "no column end_s"),
    ("node,pod,start_s,end_s\n", "no pod"),
    ("node,pod,start_s,end_s\nn,p,5,1\n", ":2: end_s 1 is before start_s 5"),
    ("node,pod,start_s,end_s\nn,p,soon,\n", ":2: start_s is 'soon'"),
    ("node,pod,start_s,end_s\n,p,1,2\n", ":2 names no node"),
])  # fmt: skip
def test_a_wrong_recording_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_workload(recording(tmp_path, text))
    assert said in caught.value.message
    assert caught.value.remedy


def test_a_recorded_node_that_no_group_has(tmp_path: Path) -> None:
    from ipam.simulation.engine import Simulation
    from ipam.simulation.examples import example_variants

    path = recording(tmp_path, "node,pod,start_s,end_s\nodd-1,p,1,2\n")
    path.write_text(path.read_text() + 'names = ["web-*"]\n')
    with pytest.raises(InvalidInput, match="odd-1"):
        Simulation(read_workload(path), example_variants()[0])


def test_files_that_are_not_there_or_tell_pods_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_workload(tmp_path / "absent.toml")
    with pytest.raises(InvalidInput) as caught:
        read_workload(tmp_path / "pods.csv")
    assert "recorded" in caught.value.remedy


def test_variants_go_over_what_stands_above_them() -> None:
    fixed, demand = parse_variants(
        "cooldown_s = 5\n[watermarks]\npre_allocate = 4\n[[variant]]\nname = 'fixed'\n"
        "[[variant]]\nwatermarks = { min_allocate = 2 }\npolicy = { follow_demand = true }\n", "f",
    )  # fmt: skip
    assert (fixed.name, demand.name) == ("fixed", "f-2")
    marks = demand.config.watermarks
    assert (marks.pre_allocate, marks.min_allocate, demand.cooldown_s) == (4, 2, 5.0)
    assert demand.config.policy.follow_demand
    assert not fixed.config.policy.follow_demand


def test_a_services_own_settings_can_be_used() -> None:
    text = 'account = "1"\nregion = "r"\nstore = "sqlite:////x"\nredis = "unix:///r"\nrelease_delay_s = 60\n'
    (only,) = parse_variants(text, "ipam-aws")
    assert (only.name, only.config.release_delay_s) == ("ipam-aws", 60.0)


@pytest.mark.parametrize(("text", "field"), [
    ("watermarks = { pre_alocate = 1 }", "watermarks.pre_alocate"),
    ("watermarks = { min_allocate = 5, max_allocate = 2 }", "watermarks.max_allocate"),
    ("policy = { warm_addresses = 1, warm_prefixes = 1 }", "policy.warm_prefixes"),
    ("policy = { demand_least = 9, demand_most = 2 }", "policy.demand_least"),
    ("release_delay = 3", "release_delay"),
    ("budget = { mutate_per_s = 0 }", "budget.mutate_per_s"),
    ("overrides = 3", "overrides"),
    ("[[overrides]]\nwatermarks = { pre_allocate = 2 }", "overrides.1.match_labels"),
    ("[[overrides]]\nname = 'x'\nmatch_labels = { class = 3 }", "overrides.x.match_labels"),
    ("[[overrides]]\nname = 'x'\nmatch_labels = { class = 'b' }\ncoalesce_s = 3", "overrides.x.coalesce_s"),
    ("[[overrides]]\nmatch_labels = { a = 'b' }\nwatermarks = { max_allocate = 1, min_allocate = 2 }",
     "overrides.1.watermarks.max_allocate"),
    ("variant = 3", "variant"),
    ("[[variant]]\nname = 'x'\nworkers = 0", "variant.x.workers"),
])  # fmt: skip
def test_wrong_settings_are_named(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_variants(text, "v")
    assert caught.value.field == field
    assert caught.value.remedy


def test_pods_that_never_end_live_to_the_end() -> None:
    from ipam.simulation.model import PodStream
    from ipam.simulation.streams import spans

    assert list(spans((PodStream(standing=2),), seed="1", from_s=5.0, to_s=9.0)) == [(5.0, math.inf)] * 2
