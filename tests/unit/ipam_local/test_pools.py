"""Several pools of one node in one journal: a pod gets an address of its own pool, and waits for that one only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ipam.errors import PoolEmpty
from ipam.journal import Journal
from ipam.local import LocalPool
from ipam.model import AddressState, PoolInterface
from tests.unit.ipam_local.test_leases import HandClock, interface, pod, pool_of

A, B, P, Q = "10.0.0.10", "10.0.0.11", "10.0.1.10", "10.0.1.11"
MARKED = AddressState.MARKED


def payments(addresses: dict[str, AddressState] | list[str], *, index: int = 1) -> PoolInterface:
    return replace(interface(f"eni-{index}", addresses, index=index), pool="payments")


class Node:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = HandClock()
        self.journal: Journal | None = None

    def start(self) -> LocalPool:
        if self.journal is not None:
            self.journal.close()
        self.journal = Journal(self.path)
        return LocalPool(self.journal, self.clock, boot_id="boot", cooldown_s=30.0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "node.db")
    yield made
    if made.journal is not None:
        made.journal.close()


def test_a_pod_gets_an_address_of_its_own_pool_only(node: Node) -> None:
    pool = node.start()
    pool.apply(pool_of(interface("eni-0", [A, B]), payments([P])))
    assert pool.lease(pod("web")).address == A
    assert pool.lease(pod("pay"), pool="payments").address == P
    with pytest.raises(PoolEmpty):
        pool.lease(pod("pay-2"), pool="payments")
    assert pool.lease(pod("web-2")).address == B


def test_each_pool_reports_its_own(node: Node) -> None:
    pool = node.start()
    pool.apply(pool_of(interface("eni-0", [A, B]), payments([P, Q])))
    pool.lease(pod("web"))
    pool.lease(pod("pay"), pool="payments")
    pool.lease(pod("gone"), pool="payments")
    pool.free(pod("gone"))
    with pytest.raises(PoolEmpty):
        pool.lease(pod("late"), pool="payments")
    mine, theirs, whole = pool.usage(""), pool.usage("payments"), pool.usage()
    assert (mine.in_use, mine.cooling, mine.pending_pods) == (frozenset({A}), frozenset(), 0)
    assert (theirs.in_use, theirs.cooling, theirs.pending_pods) == (frozenset({P}), frozenset({Q}), 1)
    assert (whole.in_use, whole.pending_pods) == (frozenset({A, P}), 1)
    assert mine.sequence < theirs.sequence < whole.sequence


def test_a_pod_that_waits_for_one_pool_does_not_hold_up_the_release_of_another(node: Node) -> None:
    pool = node.start()
    pool.apply(pool_of(interface("eni-0", [A, B]), payments([P])))
    pool.lease(pod("pay"), pool="payments")
    with pytest.raises(PoolEmpty):
        pool.lease(pod("late"), pool="payments")
    pool.apply(pool_of(interface("eni-0", {A: MARKED, B: AddressState.AVAILABLE}), payments([P])))
    assert pool.usage("").ready == {A}
    pool.apply(pool_of(interface("eni-0", [B]), payments({P: AddressState.AVAILABLE, Q: MARKED})))
    assert pool.usage("payments").ready == frozenset(), "who waits may have it"
    assert pool.lease(pod("late"), pool="payments").address == Q


def test_what_is_used_and_of_no_pool_any_more_is_told_to_all(node: Node) -> None:
    pool = node.start()
    pool.apply(pool_of(interface("eni-0", [A]), payments([P, Q])))
    pool.lease(pod("pay"), pool="payments")
    pool.apply(pool_of(interface("eni-0", [A]), payments([Q])))
    assert pool.usage("").in_use == pool.usage("payments").in_use == {P}
    pool.free(pod("pay"))
    assert pool.usage("").cooling == pool.usage("payments").cooling == {P}


def test_leases_and_pools_outlive_the_daemon(node: Node) -> None:
    pool = node.start()
    pool.apply(pool_of(interface("eni-0", [A]), payments([P, Q])))
    pool.lease(pod("pay"), pool="payments")
    pool = node.start()
    assert pool.usage("payments").in_use == {P}
    assert pool.usage("").in_use == frozenset()
    assert pool.lease(pod("pay-2"), pool="payments").address == Q
    assert {one.pool for one in pool.interfaces().values()} == {"", "payments"}
