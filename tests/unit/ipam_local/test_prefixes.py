"""A node's prefixes are packed, so that whole ones stay free; its pods have an IPv6 address beside their IPv4 one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipam.holdings import Choice, Holdings, derived
from ipam.journal import ADDRESS6, Journal, Lease, Owner
from ipam.local import LocalPool
from ipam.model import AddressState, PoolInterface, members
from ipam.testing import FakeClock

ONE, TWO = "10.0.1.0/28", "10.0.2.0/28"


def interface(*prefixes: str, singles: tuple[str, ...] = (), **more: object) -> PoolInterface:
    addresses = [*singles, *(each for prefix in prefixes for each in members(prefix))]
    return PoolInterface(
        id="eni-1", mac="02:00:00:00:00:01", device_index=1, subnet_id="subnet-1", subnet_cidr="10.0.0.0/16",
        gateway="10.0.0.1", primary_address="10.0.0.9", vpc_id="vpc-1", zone="a", vpc_cidrs=("10.0.0.0/16",),
        security_group_ids=("sg-1",), addresses=dict.fromkeys(addresses, AddressState.AVAILABLE), prefixes=prefixes,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def pod(number: int) -> Owner:
    return Owner(f"c{number}", "eth0")


def lease(held: Holdings, number: int) -> str:
    address = held.pick()
    assert address is not None
    held.enter(Lease(pod(number), address, held.home(address), 0.0))
    return address


def free(held: Holdings, number: int) -> None:
    held.leave(held.leases[pod(number)])


class TestPacking:
    def test_one_prefix_is_filled_before_another_begins(self) -> None:
        held = Holdings(Choice.PACK)
        held.merge({"eni-1": interface(ONE, TWO)})
        got = [lease(held, number) for number in range(17)]
        assert len(set(got[:16]) & set(members(ONE))) in (0, 16)

    def test_the_fullest_one_is_taken_so_that_the_other_empties(self) -> None:
        held = Holdings(Choice.PACK)
        held.merge({"eni-1": interface(ONE, TWO)})
        for number in range(32):
            lease(held, number)
        fuller = {number for number in range(32) if held.leases[pod(number)].address in members(TWO)}
        for number in [*sorted(fuller)[:3], *sorted(set(range(32)) - fuller)[:10]]:
            free(held, number)
        assert {lease(held, 100 + number) in members(TWO) for number in range(3)} == {True}

    def test_single_addresses_go_before_a_prefix_begins_and_behind_one_that_has(self) -> None:
        held = Holdings(Choice.PACK)
        held.merge({"eni-1": interface(ONE, singles=("10.0.0.50", "10.0.0.51"))})
        assert [lease(held, 1), lease(held, 2)] == ["10.0.0.50", "10.0.0.51"]
        assert lease(held, 3) in members(ONE)
        free(held, 1)
        assert lease(held, 4) in members(ONE)

    def test_an_address_that_becomes_a_member_of_a_prefix_is_free_once(self) -> None:
        held = Holdings(Choice.PACK)
        held.merge({"eni-1": interface(singles=members(ONE))})
        held.merge({"eni-1": interface(ONE)})
        assert held.counts()[0].available == 16
        assert sorted(lease(held, number) for number in range(16)) == sorted(members(ONE))
        assert held.pick() is None


class TestIpv6:
    PREFIX = "fd00:1:0:0:1000::/80"

    def test_a_prefix_gives_the_address_with_the_same_last_bits(self) -> None:
        assert derived(self.PREFIX, "10.0.1.3") == "fd00:1::1000:0:a00:103"

    def test_without_ipv6_there_is_none(self) -> None:
        held = Holdings(Choice.PACK)
        held.merge({"eni-1": interface(ONE)})
        assert held.address6("10.0.1.3") == ""
        assert held.address6("10.9.9.9") == ""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    def pool(self, folder: Path, clock: FakeClock) -> tuple[Journal, LocalPool]:
        journal = Journal(folder / "journal.db")
        return journal, LocalPool(journal, clock, boot_id="boot-1", cooldown_s=30.0)

    def lease(self, pool: LocalPool, number: int) -> str:
        told = pool.lease(pod(number), attributes_of=lambda address: {ADDRESS6: pool.address6_of(address)})
        return told.attributes[ADDRESS6]

    def test_single_addresses_go_to_one_pod_each_and_cool_as_long_as_the_ipv4_ones(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        journal, pool = self.pool(tmp_path, clock)
        own = interface(singles=("10.0.0.50", "10.0.0.51", "10.0.0.52"), ipv6_addresses=("fd00::1", "fd00::2"))
        pool.apply({"eni-1": own})
        assert [self.lease(pool, 1), self.lease(pool, 2), self.lease(pool, 3)] == ["fd00::1", "fd00::2", ""]
        pool.free(pod(3))
        pool.free(pod(1))
        journal.close()
        journal, pool = self.pool(tmp_path, clock)  # the daemon was killed: what cools goes on cooling
        pool.apply({"eni-1": own})
        pool.settle()
        assert pool.address6_of("10.0.0.50") == ""
        clock.advance(31)
        pool.settle()
        assert self.lease(pool, 4) == "fd00::1"
        journal.close()

    def test_a_journal_keeps_what_the_pool_says_of_prefixes_and_ipv6(self, tmp_path: Path, clock: FakeClock) -> None:
        journal, pool = self.pool(tmp_path, clock)
        own = interface(ONE, ipv6_prefixes=(self.PREFIX,), ipv6_gateway="fd00:1::1")
        pool.apply({"eni-1": own})
        journal.close()
        journal, pool = self.pool(tmp_path, clock)
        assert pool.interfaces() == {"eni-1": own}
        journal.close()
