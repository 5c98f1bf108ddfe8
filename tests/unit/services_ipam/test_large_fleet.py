"""What people and Prometheus ask of a large fleet is read a part at a time: nodes' reports do not wait behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ipam import views
from ipam.model import NodeSpec
from ipam.testing import IpamSite
from services.api.ipam.v1 import ipam_pb2 as pb
from services.ipam.handlers import IpamHandlers
from services.ipam.metrics import SLICE, PoolCollector
from services.ipam.topics import PoolTopics

POOLS = 12 * SLICE


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[IpamSite, list[str]]]:
    """A fleet, and the names of the pools that were looked at."""
    site = IpamSite()
    term = site.service._term
    assert term is not None
    for number in range(POOLS):
        term.fleet.put_node(NodeSpec(f"n{number:04}", f"i-{number}"))
    seen: list[str] = []
    view = views.view_pool

    def counted(fleet: Any, reviewer: Any, pool: Any) -> Any:
        seen.append(pool.spec.name)
        return view(fleet, reviewer, pool)

    monkeypatch.setattr(views, "view_pool", counted)
    yield site, seen
    site.close()


def test_a_scrape_gives_way_again_and_again(fleet: tuple[IpamSite, list[str]]) -> None:
    site, seen = fleet
    collector = PoolCollector(site.service)

    async def scrape() -> int:
        turns = 0
        preparing = asyncio.create_task(collector.prepare())
        while not preparing.done():
            await asyncio.sleep(0)
            turns += 1
        await preparing
        return turns

    assert site.run(scrape()) >= POOLS / SLICE
    assert len(seen) == POOLS
    registry = CollectorRegistry()
    registry.register(collector)
    told = generate_latest(registry).decode()
    assert len(seen) == POOLS, "what was prepared is told"
    assert told.count("plimsoll_ipam_node_connected{") == POOLS
    assert f'plimsoll_ipam_nodes{{category="in-deficit"}} {POOLS}.0' in told
    generate_latest(registry)
    assert len(seen) == 2 * POOLS, "and only once"


def test_a_page_of_pools_costs_no_more_than_that_page(fleet: tuple[IpamSite, list[str]]) -> None:
    site, seen = fleet
    handlers = IpamHandlers(site.service, PoolTopics(), NodeSpec("", ""), cloud="aws", account="1", region="r")
    token, names = "", []
    while True:
        request = pb.ListPoolsRequest(page_size=50, page_token=token)
        answer = site.run(handlers.ListPools(request, None))  # type: ignore[arg-type]
        names += [each.node.name for each in answer.pools]
        if not (token := answer.next_page_token):
            break
    assert names == sorted(names)
    assert len(names) == len(seen) == POOLS
