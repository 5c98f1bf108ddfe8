"""Instance metadata: a token first, then the facts of the instance that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest

from lab.fake_cloud.server import serve
from lab.fake_ec2.app import Server
from lab.fake_ec2.launch import make_cloud
from lab.fake_ec2.seed import Seed

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


@pytest.fixture
async def metadata_session() -> AsyncIterator[aiohttp.ClientSession]:
    runner, listening = await serve(Server(partial(make_cloud, Seed(), 1)), "127.0.0.1:0")
    async with aiohttp.ClientSession(f"http://{listening}") as session:
        yield session
    await runner.cleanup()


async def text(session: aiohttp.ClientSession, path: str, token: str) -> str:
    async with session.get(f"/latest/{path}", headers={TOKEN: token}) as response:
        return await response.text() if response.status == 200 else str(response.status)


async def test_a_node_learns_who_it_is(metadata_session: aiohttp.ClientSession) -> None:
    async with metadata_session.post("/_admin/instances", json={"type": "m5.large"}) as response:
        made = await response.json()
    headers = {TTL: "60", "X-Instance-Id": made["id"]}
    async with metadata_session.put("/latest/api/token", headers=headers) as response:
        token = await response.text()
    mac = made["interfaces"][0]["mac"]
    assert await text(metadata_session, "meta-data/instance-id", token) == made["id"]
    assert await text(metadata_session, "meta-data/placement/", token) == "availability-zone\nregion"
    assert await text(metadata_session, "meta-data/network/interfaces/macs/", token) == f"{mac}/"
    local = await text(metadata_session, f"meta-data/network/interfaces/macs/{mac}/local-ipv4s", token)
    assert local == made["primary_address"]
    assert made["id"] in await text(metadata_session, "dynamic/instance-identity/document", token)
    assert await text(metadata_session, "meta-data/nothing", token) == "404"


async def test_without_a_token_or_an_instance_there_is_nothing(metadata_session: aiohttp.ClientSession) -> None:
    assert await text(metadata_session, "meta-data/instance-id", "made-up") == "401"
    for headers, status in [({}, 400), ({TTL: "0"}, 400), ({TTL: "99999"}, 400), ({TTL: "60"}, 404)]:
        async with metadata_session.put("/latest/api/token", headers=headers) as response:
            assert response.status == status
