"""DatapathService on a real server: what is refused arrives with field and remedy, streams end with their reader."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from datapath import layout
from datapath.errors import BpfRefused
from datapath.events.testing import event_record
from datapath.view.testing import FakeDatapath
from services.api.node.v1 import datapath_pb2 as wire
from services.api.node.v1 import datapath_pb2_grpc
from services.node.datapath_handlers import DatapathHandlers
from services.runtime.client import aio_channel
from services.runtime.errors import from_rpc_error
from services.runtime.server import GrpcServer, allow
from services.runtime.settings import ServiceSettings
from tests.streams import read

SERVICE = "plimsoll.node.v1.DatapathService"
DROP = event_record(
    type=layout.EVENT_DROP, reason=layout.DROP_SPOOFED_MAC, ifindex=7, length=100, protocol="tcp", destination_port=80
)


@dataclass
class Served:
    view: FakeDatapath
    stub: datapath_pb2_grpc.DatapathServiceAsyncStub
    server: GrpcServer

    async def listening(self, subscribers: int) -> None:
        async with asyncio.timeout(10):
            while self.view.hub.counts().subscribers != subscribers:  # noqa: ASYNC110  the hub tells nobody
                await asyncio.sleep(0.005)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    view = FakeDatapath()
    with tempfile.TemporaryDirectory(prefix="pldp") as folder, view.hub:
        settings = ServiceSettings(socket=Path(folder) / "node.sock")
        server = GrpcServer(settings, policy={f"/{SERVICE}/*": allow()})
        server.add(datapath_pb2_grpc.add_DatapathServiceServicer_to_server, DatapathHandlers(view), SERVICE)
        async with server, aio_channel(f"unix:{settings.socket}", None) as channel:
            yield Served(view, datapath_pb2_grpc.DatapathServiceStub(channel), server)


async def test_facts_arrive(served: Served) -> None:
    status = await served.stub.GetStatus(wire.GetDatapathStatusRequest())
    assert (status.mode, status.programs[0].attachments[1].device, status.events.lost) == ("ebpf", "plmdb", 1)
    maps = (await served.stub.ListMaps(wire.ListMapsRequest())).maps
    assert [one.HasField("entries") for one in maps] == [True, False]
    drops = await served.stub.GetDrops(wire.GetDropsRequest())
    assert [(one.hook, one.packets) for one in drops.passed] == [("from-pod", 1000)]
    assert {one.reason for one in drops.drops} == {"policy-egress", "icmp-unrelated"}


async def test_long_lists_come_in_batches(served: Served) -> None:
    flow = served.view.answer_flows[0]
    served.view.answer_flows = [replace(flow, source=replace(flow.source, port=port)) for port in range(1, 1202)]
    sizes = [len(some.flows) async for some in served.stub.ListFlows(wire.ListFlowsRequest())]
    assert sizes == [500, 500, 201]
    sizes = [len(some.flows) async for some in served.stub.ListFlows(wire.ListFlowsRequest(limit=501))]
    assert sizes == [500, 1]


async def test_what_the_kernel_refuses_is_told(served: Served) -> None:
    served.view.fail_next = BpfRefused("read map flows", 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ListMaps(wire.ListMapsRequest())
    assert "EPERM" in from_rpc_error(caught.value).message


async def test_a_wrong_filter_ends_the_stream_with_its_field(served: Served) -> None:
    stream = served.stub.Monitor(wire.MonitorRequest(filter=wire.EventFilter(hooks=["from-moon"])))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    remote = from_rpc_error(caught.value)
    assert (remote.kind, remote.field) == ("invalid", "hook")
    assert "from-pod" in remote.remedy


async def test_the_first_message_says_that_it_listens(served: Served) -> None:
    stream = served.stub.Monitor(wire.MonitorRequest())
    first = await read(stream, wire.MonitorResponse)
    assert not first.events
    served.view.records.put(DROP)
    (event,) = (await read(stream, wire.MonitorResponse)).events
    assert (event.reason, event.device, event.device_pod, event.packet) == ("spoofed-mac", "plmweb", "shop/web", b"")


async def test_counted_lines_come_without_another_event(served: Served) -> None:
    stream = served.stub.Monitor(wire.MonitorRequest(interval_s=0.2))
    await stream.read()
    served.view.records.put(*[DROP] * 10)
    assert (await read(stream, wire.MonitorResponse)).events[0].count == 1
    async with asyncio.timeout(5):
        assert (await read(stream, wire.MonitorResponse)).events[0].count == 9


async def test_losses_of_the_ring_are_told(served: Served) -> None:
    served.view.records.lost = 3
    stream = served.stub.Monitor(wire.MonitorRequest())
    await stream.read()
    served.view.records.lost = 8
    served.view.records.put(DROP)
    assert (await read(stream, wire.MonitorResponse)).lost_in_ring == 5


async def test_many_readers_get_the_same_and_go_when_they_like(served: Served) -> None:
    streams = [served.stub.Monitor(wire.MonitorRequest()) for _ in range(20)]
    for stream in streams:
        await stream.read()
    assert served.view.hub.counts().subscribers == 20
    served.view.records.put(DROP)
    for stream in streams:
        assert len((await read(stream, wire.MonitorResponse)).events) == 1
        stream.cancel()
    await served.listening(0)


async def test_a_flood_leaves_the_daemon_time_for_others(served: Served) -> None:
    stream = served.stub.Monitor(wire.MonitorRequest())
    await stream.read()
    served.view.records.put(*[DROP] * 15_000)
    began_s, answered = time.monotonic(), 0
    while time.monotonic() < began_s + 0.5:
        await served.stub.ListMaps(wire.ListMapsRequest())
        answered += 1
    assert answered > 10
    seen = 0
    async with asyncio.timeout(30):
        while seen < 15_000:
            message = await read(stream, wire.MonitorResponse)
            seen += len(message.events) + message.lost


async def test_streams_end_with_the_server(served: Served) -> None:
    stream = served.stub.Monitor(wire.MonitorRequest())
    await stream.read()
    async with asyncio.timeout(5):
        await served.server.__aexit__(None, None, None)
    with pytest.raises(grpc.aio.AioRpcError):
        await stream.read()
    await served.listening(0)
