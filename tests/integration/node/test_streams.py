"""The node's streams against servers of the real transport that do as they are told, and go away when they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from datapath.testing import FakeEndpoints, FakeRouting
from ipam.journal import Journal, Owner
from ipam.local import LocalPool
from ipam.model import AddressState, PoolInterface
from services.api.ipam import convert
from services.api.ipam.v1 import ipam_pb2, ipam_pb2_grpc
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.api.watch.v1 import watch_pb2
from services.node.clients import IpamClient, RegistryClient, Signal, registry_endpoint
from services.node.network import Network
from services.node.pods import Pods
from services.runtime.client import aio_channel

A, B, C = "10.0.0.10", "10.0.0.11", "10.0.0.12"


class SystemTime:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def eni(name: str, addresses: dict[str, AddressState], index: int = 0) -> PoolInterface:
    return PoolInterface(
        id=name, mac=f"02:00:00:00:00:{index:02x}", device_index=index, subnet_id="subnet-1", subnet_cidr="10.0.0.0/24",
        gateway="10.0.0.1", primary_address=f"10.0.0.{200 + index}", vpc_id="vpc-1", zone="a",
        vpc_cidrs=("10.0.0.0/16",), security_group_ids=("sg-1",), addresses=addresses,
    )  # fmt: skip


FREE, MARKED = AddressState.AVAILABLE, AddressState.MARKED


class Script(ipam_pb2_grpc.IpamServiceServicer, registry_pb2_grpc.RegistryServiceServicer):
    """A central service: keeps what nodes say, and sends what the test puts into `out`."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.out: asyncio.Queue[Any] = asyncio.Queue()
        self.revision = 0

    async def Watch(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async def listen() -> None:
            async for request in requests:
                self.heard.append(request)

        listening = asyncio.create_task(listen())
        try:
            while True:
                yield await self.out.get()
        finally:
            listening.cancel()

    async def GetPool(self, request: Any, context: Any) -> ipam_pb2.GetPoolResponse:
        found = ipam_pb2.Obtainable(addresses=20, limited_by="subnets")
        return ipam_pb2.GetPoolResponse(pool=ipam_pb2.Pool(attached=8, in_use=3, obtainable=found))

    def tell(self, *interfaces: PoolInterface, deleted: tuple[str, ...] = (), snapshot: bool = False) -> None:
        self.revision += 1
        header = watch_pb2.Header(
            position=watch_pb2.Position(epoch="e", revision=self.revision), snapshot=snapshot, complete=True
        )
        self.out.put_nowait(
            ipam_pb2.WatchResponse(
                header=header, interfaces=[convert.interface_to(one) for one in interfaces], deleted_interfaces=deleted
            )
        )

    def said(self, kind: str) -> list[Any]:
        return [getattr(one, kind) for one in self.heard if one.WhichOneof("message") == kind]


class Central:
    """The server around a script, on a Unix socket, which can be stopped and started."""

    def __init__(self, path: Path) -> None:
        self.path, self.script = path, Script()  # type: ignore[abstract]
        self.server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self.server = grpc.aio.server()
        ipam_pb2_grpc.add_IpamServiceServicer_to_server(self.script, self.server)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self.script, self.server)
        self.server.add_insecure_port(f"unix:{self.path}")
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(0)
            self.server = None


class StreamedNode:
    def __init__(self, folder: Path, central: Central) -> None:
        self.signal = Signal()
        self.journal = Journal(folder / "node.db")
        self.pool = LocalPool(self.journal, SystemTime(), boot_id="boot", cooldown_s=0.2, on_change=self.signal.fire)
        self.endpoints, self.routing = FakeEndpoints(), FakeRouting()
        self.network = Network(self.routing, self.pool)
        self.pods = Pods(self.pool, self.endpoints, mtu_of=self.network.mtu_of, wait_s=0)
        target = f"unix:{central.path}"
        self.ipam = IpamClient(
            target, lambda: aio_channel(target, None), ipam_pb2.NodeSpec(name="node-1", instance_id="i-1"),
            take=self.network.take, usage=self.pool.usage, changed=self.signal.subscribe(),
        )  # fmt: skip
        self.registry = RegistryClient(
            target, lambda: aio_channel(target, None), registry_pb2.Node(name="node-1"),
            endpoints=lambda: [registry_endpoint("node-1", one) for one in self.pods.attached()],
            changed=self.signal.subscribe(), heartbeat_s=0.05, capacity=lambda: self.ipam.capacity,
        )  # fmt: skip

    async def add(self, container: str) -> str:
        owner = Owner(container, "eth0")
        attached = await asyncio.to_thread(self.pods.add, owner, netns=f"/n/{container}", pod=f"default/{container}")
        return attached.lease.address


async def until(condition: Callable[[], Any]) -> None:
    """For what arrives through the transport."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def central(tmp_path: Path) -> AsyncIterator[Central]:
    one = Central(tmp_path / "central.sock")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def streamed_node(tmp_path: Path, central: Central) -> AsyncIterator[StreamedNode]:
    node = StreamedNode(tmp_path, central)
    yield node
    node.journal.close()


@pytest.fixture
async def following_ipam(streamed_node: StreamedNode) -> AsyncIterator[None]:
    task = asyncio.create_task(streamed_node.ipam.run())
    yield
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.usefixtures("following_ipam")
async def test_a_pool_is_acknowledged_once_it_is_in_force(central: Central, streamed_node: StreamedNode) -> None:
    script = central.script
    streamed_node.routing.absent.add("02:00:00:00:00:01")
    script.tell(eni("eni-1", {A: FREE}), eni("eni-2", {B: FREE}, 1), snapshot=True)
    await until(lambda: script.said("ack"))
    assert script.said("open")[0].node.instance_id == "i-1"
    [ack] = script.said("ack")
    assert [error.key for error in ack.errors] == ["eni-2"], "what is not in force is named"
    assert await streamed_node.add("web") == A
    await until(lambda: any(A in usage.in_use for usage in script.said("usage")))


@pytest.mark.usefixtures("following_ipam")
async def test_a_burst_is_told_in_few_messages(central: Central, streamed_node: StreamedNode) -> None:
    script = central.script
    script.tell(eni("eni-1", {f"10.0.0.{n}": FREE for n in range(10, 60)}), snapshot=True)
    await until(lambda: script.said("ack"))
    await asyncio.gather(*(streamed_node.add(f"pod{n}") for n in range(50)))
    await until(lambda: script.said("usage") and len(script.said("usage")[-1].in_use) == 50)
    assert len(script.said("usage")) < 50
    sequences = [usage.sequence for usage in script.said("usage")]
    assert sequences == sorted(set(sequences))


@pytest.mark.usefixtures("following_ipam")
async def test_a_release_is_agreed_or_refused(central: Central, streamed_node: StreamedNode) -> None:
    script = central.script
    script.tell(eni("eni-1", {A: FREE, B: FREE, C: FREE}), snapshot=True)
    await until(lambda: script.said("ack"))
    assert await streamed_node.add("web") == A
    script.tell(eni("eni-1", {A: MARKED, B: MARKED, C: FREE}))
    await until(lambda: script.said("usage") and B in script.said("usage")[-1].ready)
    assert list(script.said("usage")[-1].refused) == [A]
    assert await streamed_node.add("db") == C
    script.tell(eni("eni-1", {A: FREE, C: FREE}))
    await until(lambda: not script.said("usage")[-1].ready)


@pytest.mark.usefixtures("following_ipam")
async def test_pods_start_while_the_service_is_gone_and_it_learns_of_them(
    central: Central, streamed_node: StreamedNode
) -> None:
    central.script.tell(eni("eni-1", {A: FREE, B: FREE}), snapshot=True)
    await until(lambda: central.script.said("ack"))
    await central.stop()
    await until(lambda: not streamed_node.ipam.state.connected)
    assert await streamed_node.add("web") == A
    assert streamed_node.ipam.state.last_error
    central.script = Script()  # type: ignore[abstract]
    await central.start()
    await until(lambda: central.script.said("open"))
    opening = central.script.said("open")[0]
    assert opening.position.revision == 1, "it goes on where it stood"
    central.script.revision = 1
    central.script.tell(eni("eni-2", {C: FREE}, 1))
    await until(lambda: central.script.said("ack"))
    # The opening may be older than the lease: the transport keeps an attempt until the service is back.
    await until(lambda: A in [opening.usage, *central.script.said("usage")][-1].in_use)
    assert set(streamed_node.pool.interfaces()) == {"eni-1", "eni-2"}


@pytest.mark.usefixtures("following_ipam")
async def test_a_service_that_forgot_everything_takes_no_running_pod(
    central: Central, streamed_node: StreamedNode
) -> None:
    central.script.tell(eni("eni-1", {A: FREE, B: FREE}), snapshot=True)
    await until(lambda: central.script.said("ack"))
    assert await streamed_node.add("web") == A
    central.script.tell(snapshot=True)
    await until(lambda: len(central.script.said("ack")) == 2)
    assert streamed_node.routing.links[0].addresses == {A}
    assert [problem.address for problem in streamed_node.pool.problems()] == [A]


async def test_the_registry_is_told_of_pods_and_life(central: Central, streamed_node: StreamedNode) -> None:
    streamed_node.pool.apply({"eni-1": eni("eni-1", {A: FREE, B: FREE})})
    await streamed_node.add("web")
    task = asyncio.create_task(streamed_node.registry.run())
    script = central.script
    try:
        await until(lambda: script.said("endpoints"))
        first = script.said("endpoints")[0]
        assert first.replace
        assert [(one.pod, one.addresses[0], one.interface_id) for one in first.upserted] == [
            ("default/web", A, "eni-1")
        ]
        assert streamed_node.registry.state.connected
        await streamed_node.add("db")
        await until(lambda: len(script.said("endpoints")) == 2)
        assert [one.id for one in script.said("endpoints")[1].upserted] == ["db/eth0"]
        await asyncio.to_thread(streamed_node.pods.remove, Owner("web", "eth0"))
        await until(lambda: len(script.said("endpoints")) == 3)
        assert list(script.said("endpoints")[2].deleted_ids) == ["web/eth0"]
        await until(lambda: len(script.said("heartbeat")) >= 2)
        await central.stop()
        await until(lambda: not streamed_node.registry.state.connected)
        central.script = script = Script()  # type: ignore[abstract]
        await central.start()
        await until(lambda: script.said("endpoints"))
        assert [one.id for one in script.said("endpoints")[0].upserted] == ["db/eth0"]
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.usefixtures("following_ipam")
async def test_what_ipam_says_of_capacity_reaches_the_registry_with_heartbeats(
    central: Central, streamed_node: StreamedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.node.clients._FIRST_CAPACITY_S", 0.01)
    central.script.tell(eni("eni-1", {A: FREE}), snapshot=True)
    await until(lambda: central.script.said("ack"))
    registry = asyncio.create_task(streamed_node.registry.run())
    try:
        await until(lambda: any(beat.capacity.obtainable == 20 for beat in central.script.said("heartbeat")))
        told = central.script.said("heartbeat")[-1].capacity
        assert (told.attached, told.in_use, told.limited_by) == (8, 3, "subnets")
    finally:
        registry.cancel()
        await asyncio.wait([registry])
