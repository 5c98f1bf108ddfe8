"""A node and its pool through real processes: announce, use, give back, and who may ask."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest

from ipam.model import AddressState
from ipam.tags import CLUSTER_TAG, NODE_TAG
from lab.site import NodeClient, Site, eventually
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.runtime.errors import from_rpc_error
from services.runtime.pki import Kind

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]


def has_addresses(node: NodeClient, count: int) -> bool:
    return len(node.addresses) == count


async def announce(channel: grpc.aio.Channel) -> None:
    """Returns when the service answered. Who may not call at all is refused while it still writes."""
    call = pb_grpc.IpamServiceStub(channel).Watch()
    node = pb.NodeSpec(name="n1", instance_id="i-1")
    await call.write(pb.WatchRequest(open=pb.WatchRequest.Open(node=node)))
    await call.read()


async def read_to_end(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


FOUR = {"watermarks": pb.Watermarks(pre_allocate=4)}
SHARED = pytest.mark.asyncio(loop_scope="module")


@SHARED
async def test_a_node_gets_its_pool_and_keeps_it_between_its_marks(shared_site: Site) -> None:
    instance = await shared_site.ec2.launch("m5.large")
    async with shared_site.node("steady", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        interface = next(iter(node.interfaces.values()))
        assert interface.gateway
        assert interface.primary_address not in node.addresses
        assert list(interface.vpc_cidrs) == ["10.0.0.0/16"]

        await node.use(3)
        await node.until(lambda: len(node.addresses) == 7)
        assert node.in_use <= node.addresses

        await node.use(1)
        await node.until(lambda: len(node.addresses) == 5)
        assert node.in_use <= node.addresses, "an address in use is never taken away"

        at_cloud = {address for each in await shared_site.ec2.interfaces(instance) for address in each["addresses"]}
        assert node.addresses <= at_cloud
        pool = (await shared_site.local.GetPool(pb.GetPoolRequest(node="steady"))).pool
        assert (pool.attached, pool.in_use, pool.needed, pool.excess) == (5, 1, 0, 0)
        assert (pool.instance_type, pool.interface_limit, pool.addresses_per_interface) == ("m5.large", 3, 10)


@SHARED
async def test_a_full_interface_is_followed_by_another(shared_site: Site) -> None:
    instance = await shared_site.ec2.launch("m5.large")
    async with shared_site.node("full", instance, watermarks=pb.Watermarks(pre_allocate=12)) as node:
        await node.until(lambda: len(node.addresses) >= 12)
        assert [each.device_index for each in node.interfaces.values()] == [0, 1]
        second = next(each for each in await shared_site.ec2.interfaces(instance) if each["device_index"] == 1)
        assert (second["tags"][CLUSTER_TAG], second["tags"][NODE_TAG]) == ("plimsoll", "full")
        assert second["delete_on_termination"]


@SHARED
async def test_pods_that_wait_raise_the_pool_at_once(shared_site: Site) -> None:
    instance = await shared_site.ec2.launch("m5.large")
    async with shared_site.node("waited", instance, watermarks=pb.Watermarks(pre_allocate=1)) as node:
        await node.until(lambda: len(node.addresses) == 1)
        await node.use(1)
        node.pending_pods = 5
        await node.tell()
        await node.until(lambda: len(node.addresses) >= 6)


async def test_a_node_that_wants_a_marked_address_keeps_it(ipam_site: Site) -> None:
    instance = await ipam_site.ec2.launch("m5.large")
    async with ipam_site.node("n1", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        await node.use(3)
        await node.until(lambda: len(node.addresses) == 7)
        node.keep_marked = True
        marked = asyncio.create_task(node.until(lambda: AddressState.MARKED in node.states.values()))
        await node.use(0)
        await marked
        await node.until(lambda: AddressState.MARKED not in node.states.values())
        assert len(node.addresses) == 7
        assert (await ipam_site.ec2.calls())["by_action"].get("UnassignPrivateIpAddresses", 0) == 0
        node.keep_marked = False
        await node.tell()
        await node.until(lambda: len(node.addresses) == 4)


async def test_a_reconnecting_node_resumes_where_it_stood(ipam_site: Site) -> None:
    instance = await ipam_site.ec2.launch("m5.large")
    async with ipam_site.node("n1", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        before = node.addresses
        await ipam_site.stop_ipam()
        await ipam_site.start_ipam()
        await node.until(lambda: node.connected)
        assert node.addresses == before
        await node.use(2)
        await node.until(lambda: len(node.addresses) == 6)


@SHARED
async def test_only_a_node_itself_may_watch_its_pool(shared_site: Site) -> None:
    callers: tuple[tuple[Kind, str], ...] = (("node", "other"), ("service", "worker"), ("service", "gateway"))
    for kind, name in callers:
        async with shared_site.channel(kind, name) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await announce(channel)
            assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


@SHARED
async def test_nodes_read_their_own_pool_and_workers_alone_claim(shared_site: Site) -> None:
    instance = await shared_site.ec2.launch("m5.large")
    async with shared_site.node("own", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        async with shared_site.channel("node", "own") as own, shared_site.channel("node", "n2") as other:
            mine, theirs = pb_grpc.IpamServiceStub(own), pb_grpc.IpamServiceStub(other)
            assert (await mine.GetPool(pb.GetPoolRequest(node="own"))).pool.attached == 4
            for refused in (
                theirs.GetPool(pb.GetPoolRequest(node="own")),
                theirs.Explain(pb.ExplainRequest(node="own")),
                mine.ListPools(pb.ListPoolsRequest()),
                mine.Resync(pb.ResyncRequest()),
                pb_grpc.IpamWorkServiceStub(own).ClaimIntent(pb.ClaimIntentRequest(intent_id="x")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await refused
                assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_people_list_explain_and_resync(ipam_site: Site) -> None:
    instances = [await ipam_site.ec2.launch("m5.large") for _ in range(3)]
    nodes = [ipam_site.node(f"n{number}", each, **FOUR) for number, each in enumerate(instances)]
    async with nodes[0], nodes[1], nodes[2]:
        for node in nodes:
            await node.until(partial(has_addresses, node, 4))
        first = await ipam_site.local.ListPools(pb.ListPoolsRequest(page_size=2))
        rest = await ipam_site.local.ListPools(pb.ListPoolsRequest(page_size=2, page_token=first.next_page_token))
        assert [each.node.name for each in (*first.pools, *rest.pools)] == ["n0", "n1", "n2"]
        assert not rest.next_page_token
        await ipam_site.local.Resync(pb.ResyncRequest())

        async def resynced() -> bool:
            return (await ipam_site.local.GetStatus(pb.GetStatusRequest())).HasField("last_resync_at")

        await eventually(resynced, "a resync ends")
        status = await ipam_site.local.GetStatus(pb.GetStatusRequest())
        assert (status.cloud, status.leader, status.nodes, status.nodes_in_deficit) == ("aws", True, 3, 0)
        assert {each.operation for each in status.operations}
        assert "n1" in await ipam_site.explain("n1") or await ipam_site.explain("n1")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ipam_site.local.Explain(pb.ExplainRequest(node="nobody"))
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


@SHARED
async def test_a_node_that_reports_nonsense_loses_its_stream_and_no_other_does(shared_site: Site) -> None:
    good_instance, bad_instance = await shared_site.ec2.launch("m5.large"), await shared_site.ec2.launch("m5.large")
    spec = pb.NodeSpec(name="bad", instance_id=bad_instance)
    async with shared_site.node("good", good_instance, **FOUR) as good, shared_site.channel("node", "bad") as channel:
        await good.until(lambda: len(good.addresses) == 4)
        for usage, field in (
            (pb.Usage(in_use=["10.0.0.1/24"], sequence=2), "usage.in_use[0]"),
            (pb.Usage(cooling=["10.0.0.1"] * 1_000_000, sequence=2), "usage.cooling"),
        ):
            stream = pb_grpc.IpamServiceStub(channel).Watch()
            await stream.write(pb.WatchRequest(open=pb.WatchRequest.Open(node=spec, usage=pb.Usage(sequence=1))))
            await stream.read()
            await stream.write(pb.WatchRequest(usage=usage))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read_to_end(stream)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert from_rpc_error(refused.value).field == field
        await good.use(2)
        await good.until(lambda: len(good.addresses) == 6)
        assert good.connected
