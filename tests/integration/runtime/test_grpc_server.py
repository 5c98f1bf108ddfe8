"""A real server with mutual TLS and a Unix socket, and callers of every kind."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime import pki
from services.runtime.client import aio_channel, sync_channel
from services.runtime.errors import RemoteError, from_rpc_error
from services.runtime.server import GrpcServer, ListenError, allow
from services.runtime.settings import ServiceSettings, TlsSettings
from tests.streams import read

SERVICE = "plimsoll.registry.v1.RegistryService"


def tcp(server: GrpcServer) -> str:
    return f"127.0.0.1:{server.tcp_port}"


async def get_node(channel: grpc.aio.Channel, name: str = "node-1", **arguments: Any) -> str:
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    try:
        answer = await stub.GetNode(registry_pb2.GetNodeRequest(name=name), **arguments)
    except grpc.RpcError as exc:
        raise from_rpc_error(exc) from None
    return str(answer.node.name)


async def watch_as(channel: grpc.aio.Channel, node: str) -> str:
    call = registry_pb2_grpc.RegistryServiceStub(channel).Watch()
    try:
        opening = registry_pb2.WatchRequest.Open(node=registry_pb2.Node(name=node))
        await call.write(registry_pb2.WatchRequest(open=opening))
        return (await read(call, registry_pb2.WatchResponse)).nodes[0].name
    except grpc.RpcError as exc:
        raise from_rpc_error(exc) from None
    finally:
        call.cancel()


async def test_each_caller_is_who_its_certificate_says(registry_server: GrpcServer, issue_tls: Any) -> None:
    async with aio_channel(tcp(registry_server), issue_tls("node", "node-1"), "service/registry") as channel:
        assert await get_node(channel) == "node/node-1"
    async with aio_channel(tcp(registry_server), issue_tls("service", "ipam-aws"), "service/registry") as channel:
        assert await get_node(channel) == "service/ipam-aws"
    async with aio_channel(registry_server.listening[0], None) as channel:
        assert await get_node(channel) == "local"


async def test_a_caller_without_a_certificate_is_refused(registry_server: GrpcServer, authority: Path) -> None:
    credentials = grpc.ssl_channel_credentials((authority / "ca.pem").read_bytes())
    options = [("grpc.ssl_target_name_override", "registry.plimsoll.local")]
    async with grpc.aio.secure_channel(tcp(registry_server), credentials, options) as channel:
        with pytest.raises(RemoteError, match=r"."):
            await get_node(channel, timeout=3)
    async with grpc.aio.insecure_channel(tcp(registry_server)) as channel:
        with pytest.raises(RemoteError, match=r"."):
            await get_node(channel, timeout=3)


async def test_a_certificate_of_another_authority_is_refused(
    registry_server: GrpcServer, issue_tls: Any, tmp_path: Path
) -> None:
    pki.create_ca(tmp_path / "other")
    forged = pki.issue(tmp_path / "other", tmp_path / "forged", "node", "node-1")
    real = issue_tls("node", "node-1")
    tls = TlsSettings(ca=real.ca, certificate=forged.certificate, key=forged.key)
    async with aio_channel(tcp(registry_server), tls, "service/registry") as channel:
        with pytest.raises(RemoteError) as caught:
            await get_node(channel, timeout=3)
    assert caught.value.kind == "unavailable"


async def test_a_server_that_is_not_whom_we_meant_is_refused(registry_server: GrpcServer, issue_tls: Any) -> None:
    async with aio_channel(tcp(registry_server), issue_tls("node", "node-1"), "service/ipam-aws") as channel:
        with pytest.raises(RemoteError) as caught:
            await get_node(channel, timeout=3)
    assert caught.value.kind == "unavailable"


async def test_a_node_can_not_pose_as_a_service(registry_settings: ServiceSettings, issue_tls: Any) -> None:
    settings = registry_settings.model_copy(update={"tls": issue_tls("node", "registry"), "socket": None})
    tls = issue_tls("node", "node-1")
    async with GrpcServer(settings, policy={}) as posing, aio_channel(tcp(posing), tls, "service/registry") as channel:
        with pytest.raises(RemoteError) as caught:
            await get_node(channel, timeout=3)
    assert caught.value.kind == "unavailable"


async def test_a_node_acts_only_for_itself(registry_server: GrpcServer, issue_tls: Any) -> None:
    async with aio_channel(tcp(registry_server), issue_tls("node", "node-1"), "service/registry") as channel:
        assert await watch_as(channel, "node-1") == "node-1"
        with pytest.raises(RemoteError, match="may not act for node 'node-2'") as caught:
            await watch_as(channel, "node-2")
    assert caught.value.kind == "denied"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "name", "method", "allowed"),
    [
        ("node", "node-1", "GetNode", True),
        ("node", "node-1", "DeleteNode", False),
        ("service", "ipam-aws", "GetNode", True),
        ("service", "worker", "GetNode", False),
        ("service", "ipam-aws", "DeleteNode", False),
        ("local", "", "DeleteNode", True),
        # No rule at all: nobody may.
        ("node", "node-1", "ListNodes", False),
        ("local", "", "ListNodes", False),
    ],
)
async def test_what_no_rule_allows_is_refused(
    registry_server: GrpcServer, issue_tls: Any, kind: Any, name: str, method: str, allowed: bool
) -> None:
    local = kind == "local"
    target = registry_server.listening[0] if local else tcp(registry_server)
    async with aio_channel(target, None if local else issue_tls(kind, name), "service/registry") as channel:
        call = getattr(registry_pb2_grpc.RegistryServiceStub(channel), method)
        request = getattr(registry_pb2, f"{method}Request")()
        if allowed:
            await call(request)
        else:
            with pytest.raises(grpc.RpcError) as caught:
                await call(request)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_errors_carry_their_details(registry_server: GrpcServer) -> None:
    async with aio_channel(registry_server.listening[0], None) as channel:
        with pytest.raises(RemoteError) as missing:
            await get_node(channel, "missing")
        with pytest.raises(RemoteError) as busy:
            await asyncio.wait_for(get_node(channel, "busy"), 1)
        with pytest.raises(RemoteError) as broken:
            await get_node(channel, "broken")
        with pytest.raises(RemoteError) as slow:
            await get_node(channel, "slow")
    assert (missing.value.kind, missing.value.field) == ("not_found", "name")
    assert missing.value.remedy == "See: plimsoll nodes list"
    assert (busy.value.kind, busy.value.retry_after_s) == ("unavailable", 3.5)
    assert "hunter2" not in broken.value.message
    assert slow.value.code is grpc.StatusCode.DEADLINE_EXCEEDED, "the server's own limit ends it"


@pytest.mark.parametrize("text", ["huge", "huge €", "huge\n\x00"])
async def test_an_error_that_is_far_too_long_is_shortened_and_arrives(registry_server: GrpcServer, text: str) -> None:
    async with aio_channel(registry_server.listening[0], None) as channel:
        for _ in range(5):
            with pytest.raises(RemoteError) as caught:
                await get_node(channel, text)
            assert caught.value.kind == "not_found"
            assert caught.value.message.startswith(text)
            assert caught.value.remedy.startswith(text)
            assert caught.value.field.startswith(text)


async def test_the_client_has_a_deadline_of_its_own(registry_server: GrpcServer) -> None:
    async with aio_channel(registry_server.listening[0], None, deadline_s=0.05) as channel:
        with pytest.raises(RemoteError) as caught:
            await get_node(channel, "slow")
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_threads_call_by_a_channel_of_their_own(registry_server: GrpcServer, issue_tls: Any) -> None:
    tls = issue_tls("service", "ipam-aws")

    def call() -> str:
        with sync_channel(tcp(registry_server), tls, "service/registry") as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.GetNode(registry_pb2.GetNodeRequest(name="missing"))
            assert from_rpc_error(caught.value).field == "name"
            return str(stub.GetNode(registry_pb2.GetNodeRequest(name="node-1")).node.name)

    assert await asyncio.to_thread(call) == "service/ipam-aws"


async def test_health_and_reflection_answer_whoever_has_a_name(registry_server: GrpcServer, issue_tls: Any) -> None:
    async with aio_channel(tcp(registry_server), issue_tls("service", "worker"), "service/registry") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert serving.status == health_pb2.HealthCheckResponse.SERVING
        await registry_server.set_serving(False)
        serving = await health.Check(health_pb2.HealthCheckRequest())
        assert serving.status == health_pb2.HealthCheckResponse.NOT_SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert SERVICE in names
        call.cancel()


async def test_the_socket_is_for_its_group_and_goes_with_the_server(registry_settings: ServiceSettings) -> None:
    path = registry_settings.socket
    assert path is not None
    async with GrpcServer(registry_settings, policy={}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(ListenError, match="another process serves"):
            async with GrpcServer(registry_settings, policy={}):
                pass
        assert path.exists()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left_by_a_killed_process:
        left_by_a_killed_process.bind(str(path))
    async with GrpcServer(registry_settings, policy={}):
        assert path.exists()


async def test_a_port_in_use_is_told(registry_server: GrpcServer, registry_settings: ServiceSettings) -> None:
    settings = registry_settings.model_copy(update={"listen": tcp(registry_server), "socket": None})
    with pytest.raises(ListenError, match="in use") as caught:
        async with GrpcServer(settings, policy={}):
            pass
    assert caught.value.field == "listen"
    assert caught.value.remedy


async def test_a_rule_for_what_is_not_served_is_a_mistake(registry_settings: ServiceSettings) -> None:
    with pytest.raises(ValueError, match="GetNodes"):
        async with GrpcServer(registry_settings, policy={f"/{SERVICE}/GetNodes": allow()}):
            pass


async def test_streams_end_at_once_when_the_server_stops(registry_settings: ServiceSettings) -> None:
    started = asyncio.Event()

    class Endless(registry_pb2_grpc.RegistryServiceServicer):
        async def Watch(self, requests: Any, context: Any) -> Any:
            started.set()
            yield registry_pb2.WatchResponse()
            await asyncio.Event().wait()

    server = GrpcServer(registry_settings, policy={f"/{SERVICE}/*": allow()}, stop_grace_s=20)
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, Endless(), SERVICE)  # type: ignore[abstract]
    async with aio_channel(f"unix:{registry_settings.socket}", None) as channel:
        async with server:
            call = registry_pb2_grpc.RegistryServiceStub(channel).Watch()
            await call.write(registry_pb2.WatchRequest())
            await call.read()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5
        with pytest.raises(grpc.RpcError) as caught:
            await call.read()
    remote = from_rpc_error(caught.value)
    assert (remote.kind, remote.message) == ("unavailable", "the server is stopping")
    assert remote.retry_after_s is not None


async def test_rotated_certificates_are_used_without_a_restart(
    registry_server: GrpcServer, issue_tls: Any, registry_settings: ServiceSettings
) -> None:
    async def serial() -> int:
        """Serial number of the certificate that the server shows to a new connection."""
        tls = issue_tls("node", "node-1")
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.certificate, tls.key)
        context.set_alpn_protocols(["h2"])
        context.check_hostname = False
        _, writer = await asyncio.open_connection("127.0.0.1", registry_server.tcp_port, ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(der).serial_number

    before = await serial()
    assert await serial() == before
    issue_tls("service", "registry")
    after = await serial()
    assert after != before
    assert registry_settings.tls is not None
    registry_settings.tls.certificate.write_bytes(b"half of a certi")
    assert await serial() == after, "a file that can't be used leaves the last good one"
    assert os.stat(registry_settings.tls.key).st_mode & 0o777 == 0o600
