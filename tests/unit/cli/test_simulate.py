"""plimsoll ipam simulate: what it prints, and what it says of wrong input."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Answer, Plimsoll

WORK = """
cloud = "aws"
hours = 2
[[group]]
name = "web"
type = "m5.large"
nodes = 2
[[group.pods]]
per_minute = 1
lifetime_s = 300
[[subnet]]
id = "subnet-a"
cidr = "10.0.0.0/24"
"""


@pytest.fixture
def work(tmp_path: Path) -> str:
    path = tmp_path / "work.toml"
    path.write_text(WORK)
    return str(path)


def test_settings_side_by_side_for_people_and_for_programs(plimsoll: Plimsoll, work: str, tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text("watermarks = { pre_allocate = 2 }\n")
    (tmp_path / "many.toml").write_text("watermarks = { pre_allocate = 6 }\n")
    given = ("--settings", str(tmp_path / "few.toml"), "--settings", str(tmp_path / "many.toml"))
    people = plimsoll("ipam", "simulate", work, *given)
    assert people.code == 0
    for text in ("FEW", "MANY", "time to address, p99", "idle address-hours", "subnet subnet-a", "never"):
        assert text in people.out
    few, many = plimsoll("ipam", "simulate", work, *given, "--json").json["variants"]
    assert (few["variant"], many["variant"]) == ("few", "many")
    assert few["pods"] == many["pods"] > 100
    assert few["idle_mean"] < many["idle_mean"]
    assert few["subnets"][0]["exhausted_at_s"] is None


def test_an_example_without_any_file(plimsoll: Plimsoll) -> None:
    answer = plimsoll("ipam", "simulate", "--example", "cron", "--nodes", "2", "--hours", "6", "--json")
    assert answer.code == 0
    assert [each["variant"] for each in answer.json["variants"]] == ["fixed", "demand"]
    again = plimsoll("ipam", "simulate", "--example", "cron", "--nodes", "2", "--hours", "6", "--json")
    other = plimsoll("ipam", "simulate", "--example", "cron", "--nodes", "2", "--hours", "6", "--seed", "9", "--json")

    def figures(one: Answer) -> list[dict[str, object]]:
        return [{key: value for key, value in each.items() if key != "wall_s"} for each in one.json["variants"]]

    assert figures(again) == figures(answer)
    assert figures(other) != figures(answer)


def test_an_example_is_printed_and_can_be_used_as_a_file(plimsoll: Plimsoll, tmp_path: Path) -> None:
    printed = plimsoll("ipam", "simulate", "--example", "batch", "--print")
    assert "[[group.pods]]" in printed.out
    path = tmp_path / "own.toml"
    path.write_text(printed.out)
    answer = plimsoll("ipam", "simulate", str(path), "--nodes", "1", "--hours", "3", "--json")
    assert answer.json["variants"][0]["nodes"] == 1


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "name a workload"),
    (("--example", "nope"), "web, batch, cron"),
    (("--example", "web", "--hours", "1"), "measuring begins"),
    (("absent.toml",), "cannot be read"),
    (("--example", "cron", "--settings", "absent.toml"), "cannot be read"),
])  # fmt: skip
def test_wrong_usage_ends_with_two_and_a_remedy(plimsoll: Plimsoll, arguments: tuple[str, ...], said: str) -> None:
    answer = plimsoll("ipam", "simulate", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert "remedy" in answer.err


def test_a_wrong_field_is_named(plimsoll: Plimsoll, work: str) -> None:
    Path(work).write_text(WORK.replace("nodes = 2", "nodes = -2"))
    answer = plimsoll("ipam", "simulate", work)
    assert answer.code == 2
    assert "group.web.nodes" in answer.err
    assert '"field": "group.web.nodes"' in plimsoll("ipam", "simulate", work, "--json").err


def test_settings_of_the_same_name(plimsoll: Plimsoll, work: str, tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text("")
    answer = plimsoll("ipam", "simulate", work, "--settings", str(path), "--settings", str(path))
    assert answer.code == 2
    assert "give each a name" in answer.err
