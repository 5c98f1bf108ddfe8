"""Nodes' ranges out of the cluster's: told as a story, then for every order of coming and going."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.cluster_pool import ClusterPool, Network, Ranges, parse_cluster
from ipam.ranges import parse


def ranges_of(taken: Iterable[str | Network]) -> Ranges:
    ranges = Ranges()
    for number, each in enumerate(taken):
        ranges.put(f"n{number}", [ip_network(each)])
    return ranges


def test_a_small_cluster() -> None:
    pool = ClusterPool(parse_cluster(["10.128.0.0/22", "fd00:7::/62"]))
    assert (pool.ranges.versions, pool.ranges.nodes) == ((4, 6), 4)
    taken: list[str] = []
    for expected in (
        ("10.128.0.0/24", "fd00:7::/64"),
        ("10.128.1.0/24", "fd00:7:0:1::/64"),
        ("10.128.2.0/24", "fd00:7:0:2::/64"),
    ):
        given = pool.give(ranges_of(taken))
        assert given == expected, "nodes get blocks in turn"
        assert parse(given).texts == tuple(given), "which a node's daemon takes"
        taken += given
    for gone in ("10.128.1.0/24", "fd00:7:0:1::/64"):
        taken.remove(gone)
    taken += pool.give(ranges_of(taken))
    assert taken[-2:] == ["10.128.3.0/24", "fd00:7:0:3::/64"], "the range of the node that is gone rests"
    taken += pool.give(ranges_of(taken))
    assert taken[-2:] == ["10.128.1.0/24", "fd00:7:0:1::/64"], "and comes again when the others are given"
    assert pool.give(ranges_of(taken)) == ()


def test_what_nodes_have_by_their_own_settings_is_passed_over() -> None:
    pool = ClusterPool(parse_cluster(["10.128.0.0/22"]))
    taken = ["10.128.0.128/25", "10.128.1.0/30", "192.168.0.0/24", "fd00::/64"]
    assert pool.give(ranges_of(taken)) == ("10.128.2.0/24",)


def test_ranges_are_used_one_after_the_other() -> None:
    pool = ClusterPool(parse_cluster(["10.0.0.0/24", "10.9.0.0/23"]))
    taken: list[str] = []
    while given := pool.give(ranges_of(taken)):
        taken += given
    assert taken == ["10.0.0.0/24", "10.9.0.0/24", "10.9.1.0/24"]


def test_what_it_holds() -> None:
    pool = ClusterPool(parse_cluster(["10.128.0.0/16", "fd00:7::/48"]))
    assert pool.holds(["10.128.3.0/24", "fd00:7:0:9::/64"])
    assert not pool.holds(["10.128.3.0/24"]), "a family is missing"
    assert not pool.holds(["10.128.3.0/25", "fd00:7:0:9::/64"]), "of another size"
    assert not pool.holds(["10.129.3.0/24", "fd00:7:0:9::/64"]), "of elsewhere"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["10.128.0.1/16"], "host bits"),
        (["10.128.0.0/25"], "no node's range of 24 bits"),
        (["fd00::/65"], "no node's range of 64 bits"),
        (["10.128.0.0/16", "10.128.9.0/24"], "overlap"),
        (["224.0.0.0/16"], "no range for pods"),
        (["cluster"], "10.128.0.0/16"),
    ],
)
def test_what_is_no_range_of_a_cluster(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_cluster(texts)


@given(st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=60), st.lists(st.integers(0, 1023), max_size=8))
def test_no_two_nodes_ever_overlap_and_every_block_is_found(orders: list[int | None], foreign: list[int]) -> None:
    """None: a node comes; a number: that node goes."""
    pool = ClusterPool(parse_cluster(["10.0.0.0/27", "10.0.1.0/28", "fd00::/60"], 30, 64))
    own = [ip_network((0x0A000000 + each, 32)) for each in foreign]
    nodes: dict[int, tuple[str, ...]] = {}
    for number, gone in enumerate(orders):
        if gone is not None:
            nodes.pop(gone, None)
            continue
        held = [ip_network(text) for texts in nodes.values() for text in texts]
        given = pool.give(ranges_of([*held, *own]))
        blocks = [ip_network(text) for text in given]
        for block in blocks:
            assert not any(block.version == one.version and block.overlaps(one) for one in [*held, *own])
        if not given:
            all4 = [
                *ip_network("10.0.0.0/27").subnets(new_prefix=30),
                *ip_network("10.0.1.0/28").subnets(new_prefix=30),
            ]
            assert all(any(one.version == 4 and block.overlaps(one) for one in [*held, *own]) for block in all4)
            continue
        assert pool.holds(given)
        nodes[number] = given


blocks = st.builds(
    lambda bits, place: ip_network((0x0A000000 + (place << (32 - bits)) % (1 << 12), bits), strict=False),
    st.integers(20, 32), st.integers(0, 4095),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.lists(blocks, max_size=3)), max_size=12), blocks)
def test_all_that_overlaps_is_found_whatever_came_and_went(
    words: list[tuple[str, list[Network]]], asked: Network
) -> None:
    ranges, has = Ranges(), dict[str, list[Network]]()
    for owner, networks in words:
        ranges.put(owner, networks)
        has[owner] = networks
    ranges.drop("d")
    has.pop("d", None)
    expected = sorted(owner for owner, networks in has.items() for one in networks if one.overlaps(asked))
    assert sorted(ranges.sharing(asked)) == expected
