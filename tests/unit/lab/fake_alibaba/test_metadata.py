"""Instance metadata: the facts of the instance that asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from lab.fake_alibaba.launch import make_server
from lab.fake_alibaba.seed import Seed
from lab.fake_cloud.server import serve


@pytest.fixture
async def metadata_session() -> AsyncIterator[aiohttp.ClientSession]:
    runner, listening = await serve(make_server(Seed(), 1), "127.0.0.1:0")
    async with aiohttp.ClientSession(f"http://{listening}") as session:
        yield session
    await runner.cleanup()


async def test_a_node_learns_who_it_is_and_where_its_next_hop_is(metadata_session: aiohttp.ClientSession) -> None:
    async with metadata_session.post("/_admin/instances", json={"type": "ecs.g7.large"}) as response:
        made = await response.json()

    async def text(path: str, instance_id: str = made["id"]) -> str:
        headers = {"X-Instance-Id": instance_id}
        async with metadata_session.get(f"/latest/meta-data/{path}", headers=headers) as response:
            return await response.text() if response.status == 200 else str(response.status)

    (interface,) = made["interfaces"]
    assert await text("instance-id") == made["id"]
    assert await text("instance/instance-type") == "ecs.g7.large"
    assert await text("zone-id") == "eu-central-1a"
    assert "network/" in (await text("")).splitlines()
    assert await text("network/interfaces/macs") == f"{interface['mac']}/"
    card = f"network/interfaces/macs/{interface['mac']}"
    assert await text(f"{card}/network-interface-id") == interface["id"]
    assert await text(f"{card}/gateway") == "10.0.15.253"
    assert json.loads(await text(f"{card}/private-ipv4s")) == interface["addresses"]
    assert await text("nonsense") == "404"
    assert await text("instance-id", "i-bp1000000000000000000") == "404"


async def test_a_token_is_given_for_a_time_that_can_be(metadata_session: aiohttp.ClientSession) -> None:
    for ttl, status in (("60", 200), ("0", 400), ("x", 400), ("99999", 400)):
        headers = {"X-aliyun-ecs-metadata-token-ttl-seconds": ttl}
        async with metadata_session.put("/latest/api/token", headers=headers) as response:
            assert response.status == status
