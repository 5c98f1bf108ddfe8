"""A registry of the tests' own behind a real server, and certificates for whoever wants to call it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from ipam.errors import NotFound, Throttled
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.runtime import pki
from services.runtime.server import GrpcServer, allow, identity, require_node
from services.runtime.settings import ServiceSettings, TlsSettings

SERVICE = "plimsoll.registry.v1.RegistryService"
IssueTls: TypeAlias = Callable[..., TlsSettings]


class Registry(registry_pb2_grpc.RegistryServiceServicer):
    """Answers what a test needs: who called, errors by name, and a stream per node."""

    def __init__(self) -> None:
        self.calls = 0

    async def GetNode(self, request: registry_pb2.GetNodeRequest, context: Any) -> registry_pb2.GetNodeResponse:
        self.calls += 1
        if request.name == "missing":
            raise NotFound("no node missing", field="name", remedy="See: plimsoll nodes list")
        if request.name == "busy":
            raise Throttled("slow down", retry_after_s=3.5)
        if request.name == "broken":
            raise ValueError("password=hunter2")
        if request.name.startswith("huge"):
            raise NotFound(request.name * 9000, field=request.name * 900, remedy=request.name * 9000)
        if request.name == "slow":
            await asyncio.sleep(60)
        return registry_pb2.GetNodeResponse(node=registry_pb2.Node(name=str(identity(context))))

    async def DeleteNode(
        self, request: registry_pb2.DeleteNodeRequest, context: Any
    ) -> registry_pb2.DeleteNodeResponse:
        return registry_pb2.DeleteNodeResponse()

    async def ListNodes(self, request: registry_pb2.ListNodesRequest, context: Any) -> registry_pb2.ListNodesResponse:
        return registry_pb2.ListNodesResponse()

    async def Watch(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            require_node(identity(context), request.open.node.name)
            yield registry_pb2.WatchResponse(nodes=[request.open.node])


POLICY = {
    f"/{SERVICE}/GetNode": allow(nodes=True, services=["ipam-aws"]),
    f"/{SERVICE}/Watch": allow(nodes=True),
    f"/{SERVICE}/DeleteNode": allow(),
}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    pki.create_ca(folder)
    return folder


@pytest.fixture
def issue_tls(authority: Path, tmp_path: Path) -> IssueTls:
    def issue(kind: pki.Kind, name: str, **arguments: Any) -> TlsSettings:
        issued = pki.issue(authority, tmp_path / "tls", kind, name, **arguments)
        return TlsSettings(ca=issued.ca, certificate=issued.certificate, key=issued.key)

    return issue


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def registry_settings(issue_tls: IssueTls, socket_folder: Path) -> ServiceSettings:
    return ServiceSettings(
        listen="127.0.0.1:0", socket=socket_folder / "registry.sock", tls=issue_tls("service", "registry")
    )


@pytest.fixture
async def registry_server(registry_settings: ServiceSettings) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(registry_settings, policy=POLICY, call_limit_s=0.3)
    server.add(registry_pb2_grpc.add_RegistryServiceServicer_to_server, Registry(), SERVICE)  # type: ignore[abstract]
    async with server:
        await server.set_serving()
        yield server
