"""Two pools of one node through real processes: each keeps its own marks, though `ipam-aws` is killed in the middle."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ipam.tags import POOL_TAG
from lab.site import NodeClient, Site, eventually
from services.api.ipam import node_pools
from services.api.ipam.v1 import ipam_pb2 as pb
from services.runtime.watch import Position

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]


class Without(NodeClient):
    """A daemon whose settings have no pool beside the default one any more."""

    async def _open(self, position: Position) -> Any:
        call = self._stub.Watch(metadata=node_pools.to_metadata(()))
        opened = pb.WatchRequest.Open(node=self._spec, position=position.to_proto(), usage=self._usage())
        await call.write(pb.WatchRequest(open=opened))
        return call


async def assert_apart(site: Site, instance: str, default: NodeClient, payments: NodeClient) -> None:
    """Each pool is told the interfaces of its own, as the cloud has them, and no address is in both."""
    interfaces = await site.ec2.interfaces(instance)
    for node, pool in ((default, ""), (payments, "payments")):
        own = {each["id"]: each for each in interfaces if each["tags"].get(POOL_TAG, "") == pool}
        assert node.interfaces.keys() <= own.keys()
        at_cloud = {address for each in own.values() for address in each["addresses"]}
        assert node.addresses == at_cloud - {each["primary_address"] for each in own.values()}
        assert node.in_use <= node.addresses
    twice = [each for each, count in Counter(a for one in interfaces for a in one["addresses"]).items() if count > 1]
    assert not twice


async def test_two_pools_of_a_node_are_kept_apart_over_a_crash_and_one_ends(ipam_site: Site) -> None:
    site = ipam_site
    instance = await site.ec2.launch("m5.large")
    four, three = pb.Watermarks(pre_allocate=4), pb.Watermarks(pre_allocate=3)
    default = site.node("pooled", instance, watermarks=four)
    payments = site.node("pooled", instance, pool="payments", watermarks=three)
    async with default, payments:
        await default.until(lambda: len(default.addresses) == 4)
        await payments.until(lambda: len(payments.addresses) == 3)
        await assert_apart(site, instance, default, payments)
        pools = (await site.local.ListPools(pb.ListPoolsRequest())).pools
        assert [(each.node.pool, each.attached) for each in pools] == [("", 4), ("payments", 3)]

        await site.ec2.faults(mutate_latency_s=0.3)
        await site.ec2.reset_calls()
        await default.use(4)
        await payments.use(3)

        async def begun() -> bool:
            return bool((await site.ec2.calls())["mutating"])

        await eventually(begun, "a worker has begun")
        await site.kill_ipam()
        await site.start_ipam()
        await site.ec2.faults()
        await default.until(lambda: len(default.addresses) == 8)
        await payments.until(lambda: len(payments.addresses) == 6)
        await assert_apart(site, instance, default, payments)

        await payments.use(0)
        await payments.until(lambda: len(payments.addresses) == 3)
        await assert_apart(site, instance, default, payments)
        assert len(default.addresses) == 8, "what one gives back is not the other's"

    async with Without("pooled", instance, site.channel("node", "pooled"), {"watermarks": four}) as alone:

        async def gone() -> bool:
            # Of the whole account: an interface is detached before it is deleted.
            left = (await site.ec2.state())["interfaces"]
            return [(each["instance_id"], each["tags"].get(POOL_TAG)) for each in left] == [(instance, None)]

        await eventually(gone, "the interface of the pool that the node has no more is deleted")
        await alone.until(lambda: len(alone.addresses) == 4)
        pools = (await site.local.ListPools(pb.ListPoolsRequest())).pools
        assert [each.node.pool for each in pools] == [""]
    assert await site.stop_ipam() == 0
