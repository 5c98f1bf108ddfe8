"""The kernel is brought in line with the pool, and the pool leases only what the kernel has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Network

import pytest

from datapath.errors import KernelRefused
from datapath.testing import FakeRouting
from ipam.errors import PoolEmpty
from ipam.journal import Owner
from ipam.model import PoolInterface
from ipam.ranges import PodRanges
from services.node.network import Network, settle
from tests.unit.node.conftest import MemoryNode


async def until(condition: Callable[[], bool]) -> None:
    """For what other threads do, which no event of this loop tells."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def fake_routing() -> FakeRouting:
    return FakeRouting()


async def test_an_interface_without_a_device_waits_for_it(
    memory_node: MemoryNode, make_eni: Callable[..., PoolInterface], fake_routing: FakeRouting
) -> None:
    network = Network(fake_routing, memory_node.pool, interval_s=60)
    first, second = make_eni("eni-1", ["10.0.0.10"], 0), make_eni("eni-2", ["10.0.0.20"], 1)
    fake_routing.absent.add(second.mac)
    problems = await network.take({"eni-1": first, "eni-2": second})
    assert set(problems) == {"eni-2"}, "and the service is told so with the acknowledgement"
    assert memory_node.pool.lease(Owner("a", "eth0")).address == "10.0.0.10"
    with pytest.raises(PoolEmpty):
        memory_node.pool.lease(Owner("b", "eth0"))
    looking = asyncio.create_task(network.run())
    try:
        await until(lambda: fake_routing.last_events is not None)
        fake_routing.absent.clear()
        assert fake_routing.last_events is not None
        fake_routing.last_events.fire()
        await until(lambda: not network.report.problems)
    finally:
        looking.cancel()
    assert memory_node.pool.lease(Owner("b", "eth0")).address == "10.0.0.20"


async def test_an_interface_that_vanished_is_kept_for_its_pods(
    memory_node: MemoryNode, make_eni: Callable[..., PoolInterface], fake_routing: FakeRouting
) -> None:
    network = Network(fake_routing, memory_node.pool)
    await network.take({"eni-1": make_eni("eni-1", ["10.0.0.10", "10.0.0.11"])})
    memory_node.pool.lease(Owner("a", "eth0"))
    await network.take({})
    [link] = fake_routing.links
    assert link.addresses == {"10.0.0.10"}, "a running pod keeps its routes whatever the service says"
    assert memory_node.pool.problems()
    with pytest.raises(PoolEmpty):
        memory_node.pool.lease(Owner("b", "eth0"))
    memory_node.pool.free(Owner("a", "eth0"))
    await network.take({})
    assert not fake_routing.links


async def test_without_a_pool_nothing_is_touched(memory_node: MemoryNode, fake_routing: FakeRouting) -> None:
    Network(fake_routing, memory_node.pool).restore()
    assert fake_routing.reconciles == 0


async def test_a_kernel_that_refuses_is_told(
    memory_node: MemoryNode,
    make_eni: Callable[..., PoolInterface],
    fake_routing: FakeRouting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(fake_routing, memory_node.pool)

    def refuse(links: object, ranges: object) -> None:
        raise KernelRefused("add a rule", 12)

    monkeypatch.setattr(fake_routing, "reconcile", refuse)
    problems = await network.take({"eni-1": make_eni("eni-1", ["10.0.0.10"])})
    assert "add a rule" in problems["eni-1"]
    with pytest.raises(PoolEmpty):
        memory_node.pool.lease(Owner("a", "eth0"))


def test_own_ranges_are_the_kernels_too_and_have_the_mtu_of_the_way_out(
    memory_node: MemoryNode, fake_routing: FakeRouting
) -> None:
    network = Network(
        fake_routing, memory_node.pool, ranges=["10.1.0.0/24"], way_mtu=lambda mtu: min(mtu or 9001, 1450)
    )
    own = PodRanges(IPv4Network("10.1.0.0/24"), None).interface()
    assert not network.hold({own.id: own})
    assert fake_routing.ranges == ("10.1.0.0/24",)
    assert network.mtu_of(own.id) == 1450


async def test_cooldowns_end_by_themselves(memory_node: MemoryNode) -> None:
    memory_node.pool._cooldown_s = 0.05
    memory_node.give("10.0.0.10")
    memory_node.pool.lease(Owner("a", "eth0"))
    memory_node.pool.free(Owner("a", "eth0"))
    task = asyncio.create_task(settle(memory_node.pool))
    try:
        await until(lambda: not memory_node.pool.usage().cooling)
    finally:
        task.cancel()
