"""Denied ranges as people write them, and in maps."""

from __future__ import annotations

import pytest

from datapath.errors import InvalidRange, OwnRange
from datapath.fake_maps import FakeMap
from datapath.prefilter.layout import PrefilterSettings
from datapath.prefilter.ranges import parse, refuse_own
from datapath.prefilter.rules import CIDRS4, CIDRS6, COUNTERS, HOSTS, SETTINGS, Rules


def maps(room: int = 100) -> dict[str, FakeMap]:
    return {
        HOSTS: FakeMap(16, 4, room),
        CIDRS4: FakeMap(8, 4, room, "lpm"),
        CIDRS6: FakeMap(20, 4, room, "lpm"),
        COUNTERS: FakeMap(4, 32, 256, "array"),
        SETTINGS: FakeMap(4, 16, 1, "array"),
    }


def settings(there: dict[str, FakeMap]) -> PrefilterSettings:
    return PrefilterSettings.unpack(there[SETTINGS].entries[bytes(4)])


def cidrs(rules: Rules) -> list[str]:
    return [str(one) for one, _, _ in rules.counted()]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:DB8:0::1", "2001:db8::1/128"),
        ("::/0", "::/0"),
    ],
)
def test_ranges_are_read(text: str, means: str) -> None:
    assert str(parse(text)) == means


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("192.0.2.1/24", "write it as 192.0.2.0/24"),
        ("2001:db8::1/64", "write it as 2001:db8::/64"),
        ("::ffff:192.0.2.0/120", "write it as 192.0.2.0/24"),
        ("::ffff:192.0.2.1", "write it as 192.0.2.1/32"),
        ("fe80::1%eth0", "leave out %"),
        ("192.0.2.0/33", "write it like"),
        ("192.0.2", "write it like"),
        ("example.com", "write it like"),
        ("", "write it like"),
    ],
)
def test_what_is_no_range_is_refused_with_what_to_write_instead(text: str, instead: str) -> None:
    with pytest.raises(InvalidRange) as told:
        parse(text)
    assert instead in told.value.remedy


def test_the_nodes_own_addresses_are_kept_out() -> None:
    own = ["10.0.0.5", "10.0.0.1", "2001:db8::5"]
    refuse_own(map(parse, ["10.0.1.0/24", "10.0.0.6", "2001:db8:1::/48"]), own)
    for text in ("10.0.0.0/24", "10.0.0.1", "0.0.0.0/0", "2001:db8::/32", "::/0"):
        with pytest.raises(OwnRange, match="of this node"):
            refuse_own([parse("192.0.2.1"), parse(text)], own)


def test_rules_are_kept_in_the_maps_alone() -> None:
    there = maps()
    rules = Rules(there)
    texts = ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::1/128", "2001:db8:1::/48", "::/128", "::/0"]
    assert rules.add([parse(text) for text in texts]) == 6
    assert rules.add([parse("192.0.2.7")]) == 0, "it is there"
    assert settings(there) == PrefilterSettings(hosts4=1, cidrs4=1, hosts6=2, cidrs6=2)
    assert sorted(cidrs(Rules(there))) == sorted(texts), "the next daemon reads them"


def test_a_number_is_used_again_with_its_counters_cleared() -> None:
    there = maps()
    rules = Rules(there)
    rules.add([parse("192.0.2.1"), parse("192.0.2.2")])
    one = (1).to_bytes(4, "little")
    there[COUNTERS].update(one, (5).to_bytes(8, "little") * 4)
    first, _ = rules.counted()
    assert (first[1], first[2].packets, first[2].byte_count) == (1, 10, 10), "the sum of two CPUs"
    assert rules.delete([parse("192.0.2.1"), parse("203.0.113.0/24")]) == 1
    rules = Rules(there)
    rules.add([parse("192.0.2.9")])
    assert [(str(rule), number, counter.packets) for rule, number, counter in rules.counted()] == [
        ("192.0.2.2/32", 2, 0), ("192.0.2.9/32", 1, 0),
    ]  # fmt: skip


def test_a_daemon_killed_between_rules_and_settings_leaves_no_rule_unused() -> None:
    there = maps()
    Rules(there).add([parse("192.0.2.1")])
    there[SETTINGS].update(bytes(4), bytes(16))
    Rules(there)
    assert settings(there).hosts4 == 1


def test_what_does_not_fit_is_refused_whole() -> None:
    there = maps(room=3)
    rules = Rules(there)
    rules.add([parse("192.0.2.1"), parse("192.0.2.2")])
    with pytest.raises(InvalidRange, match="2 addresses are denied, and 2 more do not fit: there is room for 3"):
        rules.add([parse("198.51.100.0/24"), parse("192.0.2.3"), parse("192.0.2.4")])
    assert cidrs(rules) == ["192.0.2.1/32", "192.0.2.2/32"]


def test_many_rules_cost_a_call_for_each_map() -> None:
    there = maps(room=70000)
    there[COUNTERS] = FakeMap(4, 32, 131072, "array")
    rules = Rules(there)
    rules.add([parse(f"10.{n >> 8}.{n & 255}.0/24") for n in range(20000)])
    assert there[CIDRS4].calls["update_batch"] == 1
    assert len(rules) == 20000
