"""The ip-masq-agent's file: what it may say, and what happens when it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.errors import InvalidSetting
from datapath.masquerade.agent_file import DEFAULTS, PRIVATE_RANGES, AgentFile, Watched, parse

ALL_KEYS = """
nonMasqueradeCIDRs:
  - 10.0.0.0/8
  - fd00::/8
masqLinkLocal: true
masqLinkLocalIPv6: true
resyncInterval: 1m30s
"""


def test_all_keys() -> None:
    said = parse(ALL_KEYS)
    assert said == AgentFile(("10.0.0.0/8", "fd00::/8"), True, True, 90.0)
    assert said.excluded == ("10.0.0.0/8", "fd00::/8")


def test_json_is_accepted() -> None:
    assert parse('{"nonMasqueradeCIDRs": ["192.0.2.0/24"], "resyncInterval": "30s"}').cidrs == ("192.0.2.0/24",)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "null", "masqLinkLocal: false"])
def test_what_is_not_said_is_as_the_agent_has_it(text: str) -> None:
    assert parse(text) == DEFAULTS
    assert DEFAULTS.excluded == (*PRIVATE_RANGES, "169.254.0.0/16", "fe80::/10")
    assert DEFAULTS.resync_interval_s == 60


@pytest.mark.parametrize("text", ["nonMasqueradeCIDRs: []", "nonMasqueradeCIDRs:"])
def test_no_ranges_is_not_the_default_ranges(text: str) -> None:
    assert parse(text).cidrs == ()


def test_unknown_keys_do_nothing_but_are_told() -> None:
    assert parse("masqLinklocal: true\nmasqChain: X").ignored == ("masqChain", "masqLinklocal")


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [("60s", 60), ("1h", 3600), ("1m30s", 90), ("1.5m", 90), ("2500ms", 2.5), ("10ms", 1), ("0", 1), (".5h", 1800)],
)
def test_intervals_as_go_writes_them(interval: str, seconds: float) -> None:
    assert parse(f"resyncInterval: '{interval}'").resync_interval_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("nonMasqueradeCIDRs: 10.0.0.0/8", "nonMasqueradeCIDRs", "not a list"),
        ("nonMasqueradeCIDRs: [10.0.0.0/8, ten]", "nonMasqueradeCIDRs[1]", "no range"),
        ("nonMasqueradeCIDRs: [10.0.0.0]", "nonMasqueradeCIDRs[0]", "no range"),
        ("nonMasqueradeCIDRs: [10.0.0.0/33]", "nonMasqueradeCIDRs[0]", "no range"),
        ("nonMasqueradeCIDRs: [10.0.0.1/8]", "nonMasqueradeCIDRs[0]", "beyond its prefix"),
        ("nonMasqueradeCIDRs: [7]", "nonMasqueradeCIDRs[0]", "no range"),
        ("nonMasqueradeCIDRs: [10.0.0.0/8, 11.0.0.0/8]\ncidrLimit: 1", "nonMasqueradeCIDRs", "cidrLimit"),
        ("cidrLimit: many", "cidrLimit", "whole number"),
        ("masqLinkLocal: maybe", "masqLinkLocal", "true or false"),
        ("masqLinkLocalIPv6: 1", "masqLinkLocalIPv6", "true or false"),
        ("resyncInterval: 60", "resyncInterval", "not a text"),
        ("resyncInterval: soon", "resyncInterval", "no interval"),
        ("resyncInterval: 10s later", "resyncInterval", "no interval"),
        ("[1, 2", "", "line 1"),
        ("- 10.0.0.0/8", "", "a list"),
        ("nonMasqueradeCIDRs: &a [*a]", "nonMasqueradeCIDRs[0]", ""),
        ("when: 2026-13-45", "", "cannot be"),
        ("!!python/object:os.system {}", "", "YAML"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        parse(text)
    assert refused.value.field == field
    assert hint in refused.value.message


def test_many_ranges_need_a_higher_limit() -> None:
    ranges = ", ".join(f"10.{n}.0.0/16" for n in range(65))
    with pytest.raises(InvalidSetting, match="65 ranges are more than"):
        parse(f"nonMasqueradeCIDRs: [{ranges}]")
    assert len(parse(f"nonMasqueradeCIDRs: [{ranges}]\ncidrLimit: 100").cidrs) == 65


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        parse(text)
    except InvalidSetting as refused:
        assert refused.message  # noqa: PT017  either is right


def test_a_file_comes_changes_breaks_heals_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "ip-masq-agent"
    watched = Watched(path)
    first = watched.look()
    assert (first.file, first.found, first.changed, first.problem) == (DEFAULTS, False, True, "")
    path.write_text("nonMasqueradeCIDRs: [10.0.0.0/8]")
    came = watched.look()
    assert (came.file.cidrs, came.found, came.changed) == (("10.0.0.0/8",), True, True)
    assert not watched.look().changed
    path.write_text("nonMasqueradeCIDRs: [10.0.0.1/8]")
    broke = watched.look()
    assert broke.file.cidrs == ("10.0.0.0/8",), "the rules before stay"
    assert not broke.changed
    assert "nonMasqueradeCIDRs[0]" in broke.problem
    assert "did you mean 10.0.0.0/8?" in broke.problem
    assert watched.look().problem == broke.problem, "for as long as it is so"
    path.write_text("nonMasqueradeCIDRs: [11.0.0.0/8]")
    assert watched.look().file.cidrs == ("11.0.0.0/8",)
    path.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in watched.look().problem
    path.unlink()
    path.mkdir()
    unreadable = watched.look()
    assert "cannot be read" in unreadable.problem
    assert unreadable.file.cidrs == ("11.0.0.0/8",)
    path.rmdir()
    gone = watched.look()
    assert (gone.file, gone.found, gone.changed, gone.problem) == (DEFAULTS, False, True, "")


def test_the_links_of_a_configmap_swap(tmp_path: Path) -> None:
    """Kubernetes writes a new folder, then renames a link to it; sizes and even times may be equal."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "config").write_text(f"nonMasqueradeCIDRs: [1{number}.0.0.0/8]")
        os.utime(tmp_path / f"..{number}" / "config", (1000, 1000))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config").symlink_to("..data/config")
    watched = Watched(tmp_path / "config")
    assert watched.look().file.cidrs == ("11.0.0.0/8",)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    swapped = watched.look()
    assert (swapped.file.cidrs, swapped.changed) == (("12.0.0.0/8",), True)


def test_the_node_may_refuse_what_it_cannot_do(tmp_path: Path) -> None:
    def check(file: AgentFile) -> None:
        if any(":" in cidr for cidr in file.cidrs):
            raise InvalidSetting("IPv6 is off here", field="nonMasqueradeCIDRs")

    path = tmp_path / "file"
    path.write_text("nonMasqueradeCIDRs: [fd00::/8]")
    reading = Watched(path, check).look()
    assert reading.file == DEFAULTS
    assert "nonMasqueradeCIDRs: IPv6 is off here" in reading.problem
