"""A bad setting is named with its value and with what is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipam.config import IpamConfig
from ipam.model import Limits, NodeSpec, Policy, Watermarks
from ipam.overrides import overridden
from services.ipam.settings import check_redis_url, parse_tags, read_limits
from services.ipam_aws.settings import Settings
from services.runtime.settings import SettingsError, load

PLACE = ["--account", "123456789012", "--region", "eu-west-1"]


def settings(*argv: str, environ: dict[str, str] | None = None) -> Settings:
    return load(Settings, [*PLACE, *argv], environ=environ or {})


def test_what_is_not_set_is_the_domains_own_default() -> None:
    config = settings().config()
    assert config == IpamConfig(account="123456789012", region="eu-west-1")
    assert settings().node_defaults() == NodeSpec(name="", instance_id="")


def test_every_knob_of_the_domain_can_be_set() -> None:
    elsewhere = {"limits_override", "interface_tags"}  # a file, and the worker that creates interfaces
    assert set(IpamConfig.__dataclass_fields__) - elsewhere <= set(Settings.model_fields)


def test_nodes_take_the_services_marks_and_selections() -> None:
    chosen = settings(
        "--watermarks.pre-allocate", "4", "--watermarks.min-allocate", "15", "--subnet-tags", "role=pods",
        "--security-group-ids", "sg-0a,sg-0b", "--first-interface-index", "1", "--no-release-excess",
    )  # fmt: skip
    spec = chosen.node_defaults()
    assert spec.watermarks == chosen.config().watermarks == Watermarks(4, 15)
    assert (spec.subnet_tags, spec.security_group_ids) == ({"role": "pods"}, ("sg-0a", "sg-0b"))
    assert (spec.first_interface_index, spec.release_excess) == (1, False)


def test_lists_and_tags_come_by_environment_too() -> None:
    chosen = settings(
        environ={
            "PLIMSOLL_IPAM_AWS_SUBNET_TAGS": "role=pods,tier=a",
            "PLIMSOLL_IPAM_AWS_SUBNET_IDS": "subnet-1,subnet-2",
            "PLIMSOLL_IPAM_AWS_WATERMARKS__MAX_ALLOCATE": "20",
        }
    )
    assert chosen.subnet_tags == {"role": "pods", "tier": "a"}
    assert chosen.subnet_ids == ("subnet-1", "subnet-2")
    assert chosen.watermarks.max_allocate == 20


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--account", "12"], ["account", '"12"', "12 digits"]),
        (["--region", "mars"], ["region", '"mars"', "eu-west-1"]),
        (["--subnet-tags", "role"], ["subnet_tags"]),
        (["--subnet-ids", "vpc-1"], ["subnet_ids", "vpc-1", "subnet-"]),
        (["--security-group-ids", "10.0.0.0/33"], ["security_group_ids", "10.0.0.0/33", "sg-"]),
        (["--watermarks.pre-allocate", "-1"], ["watermarks.pre_allocate", "-1"]),
        (["--watermarks.min-allocate", "9", "--watermarks.max-allocate", "5"], ["watermarks", "max_allocate (5)"]),
        (["--redis", "localhost:6379"], ["redis", "localhost:6379", "redis://host:port/db"]),
        (["--store", "sqlite://relative.db"], ["store", "sqlite:////path"]),
        (["--urgent-fraction", "1.5"], ["urgent_fraction", "1.5"]),
        (["--limits-file", "/nonexistent/limits.toml"], ["limits_file", "/nonexistent/limits.toml"]),
        (["--listen", "0.0.0.0:7402"], ["tls"]),
        (["--pre-allocate", "3"], ["pre-allocate"]),
    ],
)
def test_a_bad_value_is_named(argv: list[str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as refusal:
        settings(*argv)
    for word in words:
        assert word in str(refusal.value)


def test_a_malformed_tag_filter_of_the_environment_is_named() -> None:
    with pytest.raises(SettingsError, match=r"subnet_tags.*'role' is no tag filter; write key=value"):
        settings(environ={"PLIMSOLL_IPAM_AWS_SUBNET_TAGS": "role"})


@pytest.mark.parametrize("value", [{"a": "1", "b": ""}, "a=1,b=", ["a=1", "b="]])
def test_tags_may_be_a_table_or_texts(value: object) -> None:
    assert parse_tags(value) == {"a": "1", "b": ""}


@pytest.mark.parametrize(("value", "word"), [("a", "'a'"), (["a=1", "b"], "'b'"), ({"": "1"}, "''"), ("=1", "''")])
def test_a_malformed_tag_filter_is_named(value: object, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        parse_tags(value)


@pytest.fixture(params=["toml", "json"])
def limits_text(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"limits.{request.param}"
    types = {"m9x.large": {"interfaces": 3, "ipv4_per_interface": 10}}
    toml = '["m9x.large"]\ninterfaces = 3\nipv4_per_interface = 10\n'
    path.write_text(json.dumps(types) if request.param == "json" else toml)
    return path


def test_limits_of_a_file_win_over_the_clouds(limits_text: Path) -> None:
    config = settings("--limits-file", str(limits_text)).config()
    assert config.limits_override == {"m9x.large": Limits("m9x.large", 3, 10)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is not TOML"),
        ("a = 1", "a: Input should be a valid dictionary"),
        ('["m9x.large"]\ninterfaces = 0\nipv4_per_interface = 10', "m9x.large.interfaces: .* not 0"),
        ('["m9x.large"]\ninterfaces = 3', "m9x.large.ipv4_per_interface: Field required"),
        ('["m9x.large"]\ninterfaces = 3\nipv4_per_interface = 10\ncidr = "10.0.0.0/8"', "m9x.large.cidr: Extra"),
    ],
)
def test_a_bad_limits_file_names_type_and_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_limits(path)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun/ter2@h:6379/0",
        "redis://:hunter2@h:port/0",
        "redis://me:hunter2@",
        "rediss://:2/hunter2@h",
        "unix://:hunter2@",
    ],
)
def test_a_redis_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="%2F") as refused:
        check_redis_url(url)
    assert "ter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://:hun%2Fter2@h:6379/0", "rediss://me:x@[fd00::1]:6379", "unix:///run/r.sock?db=1"]
)
def test_a_redis_url_that_can_be_read_is_taken(url: str) -> None:
    assert check_redis_url(url) == url


RULES = """
account = "123456789012"
region = "eu-west-1"

[policy]
warm_interfaces = 1

[[overrides]]
match_labels = { class = "batch" }
watermarks = { pre_allocate = 2 }
policy = { warm_addresses = 0, warm_up = 16 }
subnet_tags = { tier = "batch" }
"""


def test_rules_by_labels_say_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "ipam.toml"
    path.write_text(RULES)
    chosen = settings("--config", str(path))
    (rule,) = chosen.config().overrides
    assert (rule.name, rule.match_labels) == ("class=batch", {"class": "batch"})
    assert (rule.watermarks, rule.spec) == ({"pre_allocate": 2}, {"subnet_tags": {"tier": "batch"}})
    assert rule.policy == {"warm_addresses": 0, "warm_up": 16}
    assert chosen.node_defaults().policy == chosen.config().policy == Policy(warm_interfaces=1)
    batch = overridden(chosen.node_defaults(), [rule], {"class": "batch"})
    assert batch.policy == Policy(warm_addresses=0, warm_up=16)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("policy = { warm_addresses = 1, warm_prefixes = 1 }", "one target"),
        ("policy = { demand_least = 9, demand_most = 3 }", "above demand_most"),
        ("policy = { demand_least = 40 }", "demand_least .40. is above demand_most .32."),
        ('overrides = [ { match_labels = { a = "b" }, policy = { demand_most = 0 } } ]', "demand_least .1. is above"),
        (
            "watermarks = { min_allocate = 16 }\n"
            'overrides = [ { match_labels = { a = "b" }, watermarks = { max_allocate = 10 } } ]',
            "overrides 'a=b' over the service's settings: max_allocate .10. is below min_allocate .16.",
        ),
        ("overrides = [ { match_labels = {} } ]", "matches every node"),
        ('overrides = [ { match_labels = { a = "b" }, warm = 3 } ]', "warm"),
    ],
)
def test_policies_that_cannot_be(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ipam.toml"
    path.write_text(f'account = "123456789012"\nregion = "eu-west-1"\n{line}\n')
    with pytest.raises(SettingsError, match=said):
        settings("--config", str(path))


def test_a_rule_is_measured_with_what_the_service_says(tmp_path: Path) -> None:
    file = tmp_path / "ipam.toml"
    file.write_text(
        'policy = { demand_most = 64 }\noverrides = [ { match_labels = { a = "b" }, policy = { demand_least = 40 } } ]'
    )
    (rule,) = settings("--config", str(file)).config().overrides
    assert rule.policy == {"demand_least": 40}
