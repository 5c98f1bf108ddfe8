"""Two VPCs of one account with the same range, served by one `ipam-aws`: each node has, and gives back, its own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lab.site import NodeClient, Site, eventually
from lab.site.fake import ACCOUNT, REGION
from services.api.ipam.v1 import ipam_pb2 as pb

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]

FOUR = {"watermarks": pb.Watermarks(pre_allocate=4)}
# Of its eleven addresses an instance takes nine, so two of them share most, whatever the cloud hands out.
VPC = {"cidr": "10.0.0.0/24", "subnets": [{"zone": "a", "cidr": "10.0.0.0/28"}]}


async def assert_own(site: Site, nodes: dict[str, NodeClient]) -> None:
    """Each node, by its instance, is told what the cloud has there, and nobody claims an address of another."""
    for instance, node in nodes.items():
        at_cloud = {address for each in await site.ec2.interfaces(instance) for address in each["addresses"]}
        assert node.addresses == at_cloud - {each.primary_address for each in node.interfaces.values()}
        assert node.in_use <= node.addresses
        assert "the cloud says" not in await site.explain(node.name)


async def resync(site: Site) -> None:
    async def last() -> int:
        return (await site.local.GetStatus(pb.GetStatusRequest())).last_resync_at.ToNanoseconds()

    async def again() -> bool:
        return await last() > before

    before = await last()
    await site.local.Resync(pb.ResyncRequest())
    await eventually(again, "a resync ends")


async def test_nodes_of_two_vpcs_have_the_same_addresses(
    make_site: Callable[..., Awaitable[Site]], tmp_path: Path
) -> None:
    start = tmp_path / "start.json"
    start.write_text(json.dumps({"account": ACCOUNT, "region": REGION, "vpc": [VPC, VPC]}))
    site = await make_site(ec2=["--start", str(start)])
    subnets = {each["vpc_id"]: each["id"] for each in (await site.ec2.state())["subnets"]}
    first, second = [await site.ec2.launch("m5.large", subnet_id=subnet) for subnet in subnets.values()]
    one, two = site.node("one", first, **FOUR), site.node("two", second, **FOUR)
    nodes = {first: one, second: two}
    async with one, two:
        for node in nodes.values():
            await grown(node)
        assert one.addresses & two.addresses
        assert {each.vpc_id for node in nodes.values() for each in node.interfaces.values()} == subnets.keys()
        await resync(site)
        await assert_own(site, nodes)
        status = await site.local.GetStatus(pb.GetStatusRequest())
        assert {each.vpc_id: each.id for each in status.subnets} == subnets
        assert (status.nodes_in_deficit, status.dead_letters) == (0, 0)

        before = two.addresses
        await one.use(0)
        await one.until(lambda: len(one.addresses) == 4)
        assert two.addresses == before
        await assert_own(site, nodes)

        await site.kill_ipam()
        await site.start_ipam()
        await grown(one)
        assert two.addresses == before
        await resync(site)
        await assert_own(site, nodes)


async def grown(node: NodeClient) -> None:
    await node.until(lambda: node.connected and len(node.addresses) == 4)
    await node.use(4)
    await node.until(lambda: len(node.addresses) == 8)
