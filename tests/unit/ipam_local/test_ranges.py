"""A node's own ranges: what is leased of them, what is refused, and that a pool made of one is a pool like others."""

from __future__ import annotations

import time
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ipam.errors import PoolEmpty
from ipam.journal import Journal, Owner
from ipam.local import LocalPool
from ipam.ranges import FIRST6, parse


class SystemTime:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def test_first_last_and_gateway_are_not_leased() -> None:
    interface = parse(["10.1.0.0/29"]).interface()
    assert list(interface.addresses) == [f"10.1.0.{n}" for n in range(2, 7)]
    assert (interface.id, interface.gateway, interface.mac) == ("10.1.0.0/29", "10.1.0.1", "")


def test_the_smallest_range_has_one_address() -> None:
    assert list(parse(["10.1.0.4/30"]).interface().addresses) == ["10.1.0.6"]


def test_ipv6_alone_is_leased_from_a_bounded_part() -> None:
    interface = parse(["fd00:1::/64"], 3).interface()
    assert list(interface.addresses) == ["fd00:1::1000", "fd00:1::1001", "fd00:1::1002"]
    assert (interface.id, interface.gateway) == ("fd00:1::/64", "fd00:1::1")
    assert len(parse(["fd00:1::/64"]).interface().addresses) == 4096


def test_ipv4_leads_whatever_the_order() -> None:
    ranges = parse(["fd00:1::/64", "10.1.0.0/24"])
    assert ranges.texts == ("10.1.0.0/24", "fd00:1::/64")
    assert ranges.interface().id == "10.1.0.0/24"
    assert ranges.address6_of("10.1.0.5") == "fd00:1::a01:5"
    assert parse(["10.1.0.0/24"]).address6_of("10.1.0.5") == ""
    assert parse(["fd00:1::/64"]).address6_of("fd00:1::1000") == ""


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 30), st.integers(0, 2**128 - 1), st.integers(0, 96))
def test_second_addresses_are_in_their_range_and_of_one_pod(number: int, bits4: int, number6: int, bits6: int) -> None:
    range4, range6 = IPv4Network((number, bits4), strict=False), IPv6Network((number6, bits6), strict=False)
    assume(not any(one.is_multicast or one.is_loopback or one.is_link_local for one in (range4, range6)))
    ranges = parse([str(range4), str(range6)])
    addresses = [str(range4[2]), str(range4[-2])]
    seconds = [ip_address(ranges.address6_of(address)) for address in addresses]
    assert all(second in range6 for second in seconds)
    assert len(set(seconds)) == len(set(addresses))
    assert [int(second) & 0xFFFFFFFF for second in seconds] == [int(ip_address(address)) for address in addresses]


@pytest.mark.parametrize(
    ("texts", "size6", "says"),
    [
        pytest.param([], 1, "at least one", id="none"),
        pytest.param(["10.1.0.1/24"], 1, "host bits", id="bits behind the prefix"),
        pytest.param(["pods"], 1, "10.1.0.0/24", id="no range"),
        pytest.param(["10.1.0.0/24", "10.2.0.0/24"], 1, "both IPv4", id="two of a family"),
        pytest.param(["10.0.0.0/8"], 1, "16 to 30", id="too large"),
        pytest.param(["10.1.0.0/31"], 1, "16 to 30", id="too small"),
        pytest.param(["224.0.0.0/24"], 1, "no range for pods", id="multicast"),
        pytest.param(["fe80::/64"], 1, "no range for pods", id="link-local"),
        pytest.param(["10.1.0.0/24", "fd00::/112"], 1, "at most 96", id="no room for an IPv4 address"),
        pytest.param(["fd00::/116"], 1, "no room", id="no room for one"),
        pytest.param(["fd00::/112"], 0x10000 - FIRST6 + 1, "no room", id="one too many"),
    ],
)
def test_what_cannot_be_is_refused(texts: list[str], size6: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(texts, size6)


def test_a_pool_of_a_range_cools_survives_and_tells_what_to_do_when_it_is_empty(tmp_path: Path) -> None:
    ranges = parse(["10.1.0.0/30", "fd00:1::/64"])

    def opened() -> LocalPool:
        return LocalPool(journal, SystemTime(), boot_id="boot", cooldown_s=30)

    with Journal(tmp_path / "node.db") as journal:
        pool = opened()
        pool.apply({one.id: one for one in [ranges.interface()]})
        second = lambda address: {"address6": ranges.address6_of(address)}  # noqa: E731
        lease = pool.lease(Owner("a", "eth0"), attributes={"netns": "/n"}, attributes_of=second)
        assert (lease.address, lease.interface_id) == ("10.1.0.2", "10.1.0.0/30")
        assert lease.attributes == {"netns": "/n", "address6": "fd00:1::a01:2"}
        again = opened()
        assert again.find(Owner("a", "eth0")) == lease, "also without being told of the range"
        with pytest.raises(PoolEmpty) as empty:
            again.lease(Owner("b", "eth0"))
        assert "pod_cidrs" in empty.value.remedy
        again.free(Owner("a", "eth0"))
        with pytest.raises(PoolEmpty, match="1 cooling"):
            again.lease(Owner("b", "eth0"))


def test_another_range_leaves_running_pods_theirs(tmp_path: Path) -> None:
    with Journal(tmp_path / "node.db") as journal:
        pool = LocalPool(journal, SystemTime(), boot_id="boot", cooldown_s=0)
        for text in ("10.1.0.0/24", "10.2.0.0/24"):
            pool.apply({one.id: one for one in [parse([text]).interface()]})
            pool.lease(Owner(text, "eth0"))
        assert {lease.address for lease in pool.leases()} == {"10.1.0.2", "10.2.0.2"}
        assert [problem.address for problem in pool.problems()] == ["10.1.0.2"]
