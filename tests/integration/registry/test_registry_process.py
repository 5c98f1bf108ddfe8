"""The registry as a process: nodes come, die and come back; so does the registry."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.api.watch.v1 import watch_pb2

READY, LOST = registry_pb2.NODE_STATE_READY, registry_pb2.NODE_STATE_LOST

OpenNode = Callable[..., Any]


async def test_nodes_hear_of_each_other_and_of_a_death(registry: Any, node_stream: OpenNode) -> None:
    one = await node_stream(registry, "node-1")
    two = await node_stream(registry, "node-2")
    await two.report("c1/eth0", "c2/eth0", replace=True)
    await one.until(lambda: one.state("node-2") == READY and one.has("node-2", "c1/eth0", "c2/eth0"))
    await two.report(deleted=("c1/eth0",))
    await one.until(lambda: one.has("node-2", "c2/eth0"))

    beating = asyncio.create_task(one.keep_alive())
    two.call.cancel()
    await one.until(lambda: one.state("node-2") == LOST)
    assert one.state("node-1") == READY
    assert one.has("node-2", "c2/eth0"), "what a lost node runs is assumed to go on"

    await two.open()
    await one.until(lambda: one.state("node-2") == READY)
    beating.cancel()


async def test_a_killed_registry_resumes_what_it_told(registry_anywhere: Any, node_stream: OpenNode) -> None:
    registry = registry_anywhere
    one = await node_stream(registry, "node-1")
    two = await node_stream(registry, "node-2")
    await two.report("c1/eth0", "c2/eth0", replace=True)
    await one.until(lambda: one.has("node-2", "c1/eth0", "c2/eth0"))
    registered_at = one.nodes["node-1"].registered_at
    epoch = one.position.epoch

    assert await registry.stop(signal.SIGKILL) == -signal.SIGKILL
    await registry.start()
    again = await node_stream(registry, "node-1")
    await again.until(lambda: len(again.nodes) == 2)
    assert again.position.epoch != epoch
    assert again.has("node-2", "c1/eth0", "c2/eth0")
    assert again.state("node-2") == READY, "it has its whole time to come back"
    assert again.nodes["node-1"].registered_at == registered_at
    beating = asyncio.create_task(again.keep_alive())
    await again.until(lambda: again.state("node-2") == LOST)
    beating.cancel()


async def test_a_second_registry_stands_by_and_follows_a_killed_one(
    registry_anywhere: Any, second_registry: Any, node_stream: OpenNode, manager: Any
) -> None:
    one = await node_stream(registry_anywhere, "node-1")
    await one.report("c1/eth0", replace=True)
    await one.until(lambda: one.has("node-1", "c1/eth0"))
    manager.tell(second_registry)
    following = asyncio.create_task(second_registry.start())
    await second_registry.standing_by.wait()
    said = await manager.heard()
    assert "READY=1" in said, "else the service manager would end it for not starting in time"
    assert "STATUS=registry is standing by: another process leads" in said
    assert not following.done()
    await registry_anywhere.stop(signal.SIGKILL)
    await following
    assert "STATUS=registry is serving" in await manager.heard()
    two = await node_stream(second_registry, "node-2")
    await two.until(lambda: "node-1" in two.nodes and two.has("node-1", "c1/eth0"))


async def test_a_watcher_resumes_where_it_stood(registry: Any, node_stream: OpenNode) -> None:
    one = await node_stream(registry, "node-1")
    await one.report(*(f"c{n}/eth0" for n in range(100)), replace=True)
    await one.until(lambda: len(one.endpoints) == 100)
    one.call.cancel()
    two = await node_stream(registry, "node-2")
    await two.report("late/eth0")
    await two.until(lambda: two.has("node-2", "late/eth0"))
    before = one.upserts
    await one.open()
    await one.until(lambda: one.has("node-2", "late/eth0"))
    assert one.upserts - before == 1


async def test_it_stops_cleanly_and_lets_go_of_streams(registry: Any, node_stream: OpenNode) -> None:
    one = await node_stream(registry, "node-1")
    await one.until(lambda: one.state("node-1") == READY)
    assert await registry.stop(signal.SIGTERM) == 0
    with pytest.raises((grpc.aio.AioRpcError, EOFError)):
        await one.until(lambda: False)


async def test_a_slow_watcher_is_sent_the_end_state_not_all_that_led_to_it(
    registry: Any, node_stream: OpenNode
) -> None:
    slow = await node_stream(registry, "node-2")
    await slow.until(lambda: slow.state("node-2") == READY)
    busy = await node_stream(registry, "node-1")
    ids = [f"c{n}/eth0" for n in range(1000)]
    rounds = 60
    for turn in range(rounds):
        await busy.report(*ids, replace=True, address=f"10.1.{turn}.1", label="x" * 500)
        await busy.until(lambda turn=turn: _all_at(busy, ids, f"10.1.{turn}.1"))

    beating = asyncio.create_task(busy.keep_alive())
    await slow.until(lambda: _all_at(slow, ids, f"10.1.{rounds - 1}.1"))
    assert slow.upserts < rounds * len(ids) / 2, "what changed many times since is sent once"
    beating.cancel()


def _all_at(stream: Any, ids: list[str], address: str) -> bool:
    found = [stream.endpoints.get(("node-1", id)) for id in ids]
    return all(one is not None and one.addresses[0] == address for one in found)


async def _code_of(stream: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.until(lambda: False)
    code: grpc.StatusCode = refused.value.code()
    return code


async def test_a_node_acts_only_for_itself(registry: Any, node_stream: OpenNode) -> None:
    thief = await node_stream(registry, "node-1", announced_as="node-2")
    assert await _code_of(thief) == grpc.StatusCode.PERMISSION_DENIED
    async with registry.local() as channel:
        listed = await registry_pb2_grpc.RegistryServiceStub(channel).ListNodes(registry_pb2.ListNodesRequest())
    assert not listed.nodes


async def test_a_node_reports_only_its_own_endpoints(registry: Any, node_stream: OpenNode) -> None:
    one = await node_stream(registry, "node-1")
    foreign = registry_pb2.Endpoint(id="c1/eth0", node="node-2")
    report = registry_pb2.WatchRequest.Endpoints(upserted=[foreign])
    await one.call.write(registry_pb2.WatchRequest(endpoints=report))
    assert await _code_of(one) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_node_may_not_delete_nodes(registry: Any) -> None:
    async with registry.channel("node", "node-1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await registry_pb2_grpc.RegistryServiceStub(channel).DeleteNode(registry_pb2.DeleteNodeRequest(name="a"))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(registry_pb2.WatchRequest(ack=watch_pb2.Ack()), id="an acknowledgement before opening"),
        pytest.param(registry_pb2.WatchRequest(), id="nothing"),
        pytest.param(registry_pb2.WatchRequest(open=registry_pb2.WatchRequest.Open()), id="a node without a name"),
    ],
)
async def test_a_stream_begins_by_opening(registry: Any, request_: registry_pb2.WatchRequest) -> None:
    async with registry.local() as channel:
        call = registry_pb2_grpc.RegistryServiceStub(channel).Watch()
        await call.write(request_)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_second_stream_of_a_node_ends_the_first(registry: Any, node_stream: OpenNode) -> None:
    first = await node_stream(registry, "node-1")
    await first.until(lambda: first.state("node-1") == READY)
    second = await node_stream(registry, "node-1")
    assert await _code_of(first) == grpc.StatusCode.ABORTED
    await second.report("c1/eth0")
    await second.until(lambda: second.has("node-1", "c1/eth0"))


async def test_a_node_that_only_reports_is_sent_nothing(registry: Any) -> None:
    async with registry.channel("node", "node-1") as channel, registry.local() as local:
        call = registry_pb2_grpc.RegistryServiceStub(channel).Watch()
        opening = registry_pb2.WatchRequest.Open(node=registry_pb2.Node(name="node-1"))
        await call.write(registry_pb2.WatchRequest(open=opening))
        report = registry_pb2.WatchRequest.Endpoints(upserted=[registry_pb2.Endpoint(id="c1/eth0")])
        await call.write(registry_pb2.WatchRequest(endpoints=report))
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        stub = registry_pb2_grpc.RegistryServiceStub(local)
        listed = await stub.ListEndpoints(registry_pb2.ListEndpointsRequest(node="node-1"))
        assert [one.id for one in listed.endpoints] == ["c1/eth0"]
        assert (await stub.GetNode(registry_pb2.GetNodeRequest(name="node-1"))).node.endpoints == 1


async def test_listings_go_page_by_page_and_refuse_what_is_wrong(registry: Any, node_stream: OpenNode) -> None:
    for name in ("node-1", "node-2"):
        stream = await node_stream(registry, name)
        await stream.report(*(f"c{n}/eth0" for n in range(5)), replace=True)
        await stream.until(lambda stream=stream, name=name: len([of for of, _ in stream.endpoints if of == name]) == 5)
    async with registry.local() as channel:
        stub = registry_pb2_grpc.RegistryServiceStub(channel)
        seen: list[tuple[str, str]] = []
        token = ""
        while True:
            answer = await stub.ListEndpoints(registry_pb2.ListEndpointsRequest(page_size=3, page_token=token))
            seen.extend((one.node, one.id) for one in answer.endpoints)
            token = answer.next_page_token
            if not token:
                break
        assert seen == [(node, f"c{n}/eth0") for node in ("node-1", "node-2") for n in range(5)]
        first = await stub.ListNodes(registry_pb2.ListNodesRequest(page_size=1))
        assert [node.name for node in first.nodes] == ["node-1"]
        for wrong, code in (
            (stub.ListNodes(registry_pb2.ListNodesRequest(page_token="x")), grpc.StatusCode.INVALID_ARGUMENT),
            (stub.ListNodes(registry_pb2.ListNodesRequest(page_size=5000)), grpc.StatusCode.INVALID_ARGUMENT),
            (
                stub.ListEndpoints(registry_pb2.ListEndpointsRequest(page_token=first.next_page_token, node="node-1")),
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
            (stub.ListEndpoints(registry_pb2.ListEndpointsRequest(node="nobody")), grpc.StatusCode.NOT_FOUND),
            (stub.GetNode(registry_pb2.GetNodeRequest(name="nobody")), grpc.StatusCode.NOT_FOUND),
            (stub.DeleteNode(registry_pb2.DeleteNodeRequest(name="node-1")), grpc.StatusCode.FAILED_PRECONDITION),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await wrong
            assert refused.value.code() == code


async def test_a_lost_node_is_deleted_and_everybody_is_told(registry: Any, node_stream: OpenNode) -> None:
    one = await node_stream(registry, "node-1")
    two = await node_stream(registry, "node-2")
    await two.report("c1/eth0")
    await one.until(lambda: one.has("node-2", "c1/eth0"))
    beating = asyncio.create_task(one.keep_alive())
    two.call.cancel()
    await one.until(lambda: one.state("node-2") == LOST)
    async with registry.local() as channel:
        await registry_pb2_grpc.RegistryServiceStub(channel).DeleteNode(registry_pb2.DeleteNodeRequest(name="node-2"))
    await one.until(lambda: "node-2" not in one.nodes and one.has("node-2"))
    beating.cancel()
