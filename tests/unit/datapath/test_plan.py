"""What the kernel should hold for the cloud interfaces: a pure function, and a diff that converges."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from datapath.model import CloudLink, Link, Route, Rule, host_device, pod_mac
from datapath.routes.kernel import _additions, _removals
from datapath.routes.plan import desired, match


def cloud(name: str, index: int, *addresses: str) -> CloudLink:
    return CloudLink(
        name, f"02:00:00:00:00:{index:02x}", index, "10.0.0.1", f"10.0.0.{200 + index}", frozenset(addresses)
    )


def device(index: int, mac: str, name: str = "", kind: str = "") -> Link:
    return Link(index, name or f"ens{index}", mac, True, 9001, kind)


def test_interfaces_are_found_by_mac_whatever_their_name() -> None:
    links = [device(7, "02:00:00:00:00:01", "weird0"), device(8, "02:00:00:00:00:01", "weird0.5", "vlan")]
    found, problems = match([cloud("eni-b", 1), cloud("eni-c", 2)], links)
    assert found["eni-b"].index == 7, "and not by what is stacked on them"
    assert "02:00:00:00:00:02" in problems["eni-c"]


def test_two_interfaces_cannot_have_one_index() -> None:
    twin = CloudLink("eni-z", "02:00:00:00:00:09", 1, "10.0.0.1", "10.0.0.9", frozenset())
    found, problems = match([cloud("eni-b", 1), twin], [device(7, "02:00:00:00:00:01"), device(8, "02:00:00:00:00:09")])
    assert set(found) == {"eni-b"}
    assert "taken by eni-b" in problems["eni-z"]


def test_each_interface_has_a_table_and_each_address_a_rule() -> None:
    wanted = [cloud("eni-a", 0, "10.0.0.10"), cloud("eni-b", 1, "10.0.0.20")]
    found = {"eni-a": device(2, wanted[0].mac), "eni-b": device(3, wanted[1].mac)}
    state = desired(wanted, found)
    assert Route("0.0.0.0", 0, 20001, 3, "10.0.0.1") in state.routes
    assert state.rules == {
        Rule(5000, 254, suppress_length=31),
        Rule(5010, 20000, "10.0.0.10"),
        Rule(5010, 20001, "10.0.0.20"),
        Rule(5010, 20001, "10.0.0.201"),
    }
    assert [one.address for one in state.addresses] == ["10.0.0.201"], "the first interface is the host's business"


def test_ipv6_has_its_own_rules_and_routes_where_there_is_a_gateway() -> None:
    wanted = CloudLink(
        "eni-b",
        "02:00:00:00:00:01",
        1,
        "10.0.0.1",
        "10.0.0.6",
        frozenset({"10.0.0.20", "fd00::20"}),
        "fe80::1",
        "fd00::6",
    )
    found = {"eni-b": device(3, wanted.mac)}
    state = desired([wanted], found)
    assert {one for one in state.rules if one.family == 6} == {
        Rule(5000, 254, suppress_length=127, family=6),
        Rule(5010, 20001, "fd00::20", family=6),
        Rule(5010, 20001, "fd00::6", family=6),
    }
    assert {one for one in state.routes if ":" in one.destination} == {
        Route("::", 0, 20001, 3, "fe80::1"),
        Route("fd00::20", 128, 254, 0, metric=4_000_000),
    }
    assert {one.address for one in state.proxies} == {"10.0.0.20", "fd00::20"}
    assert {one.address for one in state.addresses} == {"10.0.0.6", "fd00::6"}
    without = desired([replace(wanted, gateway6="")], found)
    assert not [one for one in without.rules if one.family == 6], "the main table decides"


def test_a_gateway6_of_the_subnet_is_reached_itself() -> None:
    wanted = CloudLink("eni-b", "02:00:00:00:00:01", 1, "10.0.0.1", "", frozenset({"fd00::20"}), "fd00::1")
    state = desired([wanted], {"eni-b": device(3, wanted.mac)})
    assert Route("fd00::1", 128, 20001, 3) in state.routes


def test_an_interface_that_is_not_there_has_nothing() -> None:
    state = desired([cloud("eni-a", 1, "10.0.0.10")], {})
    assert not state.routes
    assert len(state.rules) == 1


addresses = st.frozensets(st.integers(10, 40).map(lambda number: f"10.0.0.{number}"), max_size=6)


@given(st.lists(addresses, max_size=4), st.lists(addresses, max_size=4))
def test_from_any_state_to_any_other_in_one_diff(before: list[frozenset[str]], after: list[frozenset[str]]) -> None:
    def state(pools: list[frozenset[str]]):  # type: ignore[no-untyped-def]
        wanted = [cloud(f"eni-{n}", n, *pool) for n, pool in enumerate(pools)]
        return desired(wanted, {one.name: device(one.device_index + 2, one.mac) for one in wanted})

    have, want = state(before), state(after)
    kept = sum(len(getattr(have, name) & getattr(want, name)) for name in ("routes", "rules", "proxies", "addresses"))
    total = sum(len(getattr(want, name)) for name in ("routes", "rules", "proxies", "addresses"))
    assert len(_additions(want, have)) == total - kept, "what is there already is not touched"
    assert not _additions(want, want)
    assert not _removals(want, want)


def test_names_and_macs_are_stable() -> None:
    """Devices of running pods are found again by these: a change would orphan them."""
    assert host_device("c0ffee", "eth0") == "plm6ad2516ced2"
    assert len(host_device("x" * 64, "eth0")) <= 15
    assert host_device("a", "eth0") != host_device("a", "eth1")
    assert pod_mac("10.1.2.3") == "0e:58:0a:01:02:03"
    assert pod_mac("fd00::102:304") == "0e:58:01:02:03:04"
