"""Channels: they outlast a restart of the server and a rotation of their own certificate."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime.client import aio_channel, sync_channel
from services.runtime.errors import RuntimeFault
from services.runtime.server import GrpcServer, allow
from services.runtime.settings import ServiceSettings, TlsSettings

SERVICE = "plimsoll.registry.v1.RegistryService"


def become(tls: TlsSettings, other: TlsSettings) -> None:
    """Puts another identity into the same files, as a rotation does: aside first, then renamed."""
    for name in ("certificate", "key"):
        target: Path = getattr(tls, name)
        shutil.copy(getattr(other, name), f"{target}.new")
        os.replace(f"{target}.new", target)


async def test_a_rotated_client_certificate_is_used_for_new_calls(registry_server: GrpcServer, issue_tls: Any) -> None:
    tls, target = issue_tls("node", "node-1"), f"127.0.0.1:{registry_server.tcp_port}"
    async with aio_channel(target, tls, "service/registry") as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        stream = stub.Watch()
        opening = registry_pb2.WatchRequest.Open(node=registry_pb2.Node(name="node-1"))
        await stream.write(registry_pb2.WatchRequest(open=opening))
        await stream.read()
        assert (await stub.GetNode(registry_pb2.GetNodeRequest())).node.name == "node/node-1"
        become(tls, issue_tls("node", "node-2"))
        assert (await stub.GetNode(registry_pb2.GetNodeRequest())).node.name == "node/node-2"
        await stream.write(registry_pb2.WatchRequest(open=opening))
        assert (await stream.read()).nodes[0].name == "node-1", "an open stream goes on"
        become(tls, issue_tls("node", "node-3"))
        assert (await stub.GetNode(registry_pb2.GetNodeRequest())).node.name == "node/node-3"
        stream.cancel()


async def test_threads_see_a_rotation_too(registry_server: GrpcServer, issue_tls: Any) -> None:
    tls, target = issue_tls("node", "node-1"), f"127.0.0.1:{registry_server.tcp_port}"

    def call() -> list[str]:
        names = []
        with sync_channel(target, tls, "service/registry") as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            for name in ("node-2", "node-3", "node-4"):
                names.append(stub.GetNode(registry_pb2.GetNodeRequest()).node.name)
                become(tls, issue_tls("node", name))
            names.append(stub.GetNode(registry_pb2.GetNodeRequest()).node.name)
        return names

    assert await asyncio.to_thread(call) == [f"node/node-{number}" for number in range(1, 5)]


async def test_a_call_outlasts_a_short_restart_of_the_server(registry_settings: ServiceSettings) -> None:
    class Handlers(registry_pb2_grpc.RegistryServiceServicer):
        async def GetNode(self, request: Any, context: Any) -> registry_pb2.GetNodeResponse:
            return registry_pb2.GetNodeResponse(node=registry_pb2.Node(name="here"))

    def server() -> GrpcServer:
        server = GrpcServer(registry_settings, policy={f"/{SERVICE}/*": allow()})
        server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, Handlers(), SERVICE)  # type: ignore[abstract]
        return server

    async with aio_channel(f"unix:{registry_settings.socket}", None) as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        async with server():
            assert (await stub.GetNode(registry_pb2.GetNodeRequest())).node.name == "here"

        async def call() -> str:
            return str((await stub.GetNode(registry_pb2.GetNodeRequest())).node.name)

        while_down = asyncio.create_task(call())
        await asyncio.sleep(0.05)
        async with server():
            assert await while_down == "here"


async def test_a_server_that_is_slow_to_greet_is_waited_for(registry_server: GrpcServer, issue_tls: Any) -> None:
    """As one that has thousands of peers to greet: who gives up and comes again would make it slower still."""
    came = 0

    async def passing(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while part := await source.read(65536):
            target.write(part)
            await target.drain()
        target.close()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        await asyncio.sleep(1.5)  # this is what is tested
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", registry_server.tcp_port)
        await asyncio.gather(passing(reader, server_writer), passing(server_reader, writer))

    proxy = await asyncio.start_server(slowly, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    async with proxy, aio_channel(f"127.0.0.1:{port}", issue_tls("node", "node-1"), "service/registry") as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        answer = await stub.GetNode(registry_pb2.GetNodeRequest(), timeout=10)
    assert (answer.node.name, came) == ("node/node-1", 1)


@pytest.mark.parametrize("server_identity", ["", "registry", "service/", "pod/x"])
async def test_whom_to_expect_must_be_said(issue_tls: Any, server_identity: str) -> None:
    with pytest.raises(RuntimeFault) as caught:
        aio_channel("127.0.0.1:1", issue_tls("node", "node-1"), server_identity)
    assert caught.value.field == "server_identity"
