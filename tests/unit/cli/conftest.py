"""A small site for the command: real gRPC servers on Unix sockets, with servicers written by hand."""

from __future__ import annotations

import asyncio
import inspect
import json
import queue
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status
from typer.testing import CliRunner

from datapath.errors import DatapathError
from datapath.view.testing import FakeDatapath
from ipam import errors
from services.api.ipam.v1 import ipam_pb2, ipam_pb2_grpc, level_pb2
from services.api.node.v1 import datapath_pb2_grpc, node_pb2, node_pb2_grpc
from services.api.registry.v1 import registry_pb2, registry_pb2_grpc
from services.cli.main import app
from services.node.datapath_handlers import DatapathHandlers
from services.runtime.errors import to_rpc_status


def fail(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(to_rpc_status(error)))
    raise AssertionError


class StillAlive(errors.IpamError):
    kind = "precondition"


class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(self) -> None:
        self.nodes: dict[str, registry_pb2.Node] = {}
        self.endpoints: list[registry_pb2.Endpoint] = []
        self.identities: list[registry_pb2.Identity] = []
        self.page = 2

    def GetNode(
        self, request: registry_pb2.GetNodeRequest, context: grpc.ServicerContext
    ) -> registry_pb2.GetNodeResponse:
        if request.name not in self.nodes:
            fail(context, errors.NotFound(f"no node {request.name}", field="name", remedy="see the list"))
        return registry_pb2.GetNodeResponse(node=self.nodes[request.name])

    def ListNodes(
        self, request: registry_pb2.ListNodesRequest, context: grpc.ServicerContext
    ) -> registry_pb2.ListNodesResponse:
        names, start = sorted(self.nodes), int(request.page_token or 0)
        end = start + min(self.page, request.page_size)
        token = str(end) if end < len(names) else ""
        return registry_pb2.ListNodesResponse(nodes=[self.nodes[n] for n in names[start:end]], next_page_token=token)

    def ListEndpoints(
        self, request: registry_pb2.ListEndpointsRequest, context: grpc.ServicerContext
    ) -> registry_pb2.ListEndpointsResponse:
        found = [one for one in self.endpoints if request.node in ("", one.node)]
        return registry_pb2.ListEndpointsResponse(endpoints=found)

    def ListIdentities(
        self, request: registry_pb2.ListIdentitiesRequest, context: grpc.ServicerContext
    ) -> registry_pb2.ListIdentitiesResponse:
        return registry_pb2.ListIdentitiesResponse(identities=self.identities)

    def DeleteNode(
        self, request: registry_pb2.DeleteNodeRequest, context: grpc.ServicerContext
    ) -> registry_pb2.DeleteNodeResponse:
        if self.nodes[request.name].state == registry_pb2.NODE_STATE_READY:
            fail(context, StillAlive("its heartbeat is fresh", field="name", remedy="stop its daemon first"))
        del self.nodes[request.name]
        return registry_pb2.DeleteNodeResponse()


class FakeIpam(ipam_pb2_grpc.IpamServiceServicer):
    def __init__(self) -> None:
        self.pools: dict[str, ipam_pb2.Pool] = {}
        self.findings: dict[str, list[ipam_pb2.Finding]] = {}
        self.intents: list[ipam_pb2.Intent] = []
        self.letters: dict[str, ipam_pb2.DeadLetter] = {}
        self.status = ipam_pb2.GetStatusResponse(cloud="aws", account="1234", region="eu-west-1", leader=True)
        self.replayed: list[str] = []

    def lead(self, context: grpc.ServicerContext) -> None:
        if not self.status.leader:
            fail(context, errors.NotLeader("another replica leads", remedy="ask it", retry_after_s=2))

    def GetPool(self, request: ipam_pb2.GetPoolRequest, context: grpc.ServicerContext) -> ipam_pb2.GetPoolResponse:
        self.lead(context)
        if request.node not in self.pools:
            fail(context, errors.NotFound(f"no pool of node {request.node}", field="node"))
        return ipam_pb2.GetPoolResponse(pool=self.pools[request.node])

    def ListPools(
        self, request: ipam_pb2.ListPoolsRequest, context: grpc.ServicerContext
    ) -> ipam_pb2.ListPoolsResponse:
        self.lead(context)
        return ipam_pb2.ListPoolsResponse(pools=self.pools.values())

    def Explain(self, request: ipam_pb2.ExplainRequest, context: grpc.ServicerContext) -> ipam_pb2.ExplainResponse:
        self.lead(context)
        if request.node not in self.findings:
            fail(context, errors.NotFound(f"no pool of node {request.node}", field="node"))
        return ipam_pb2.ExplainResponse(findings=self.findings[request.node])

    def GetStatus(
        self, request: ipam_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> ipam_pb2.GetStatusResponse:
        return self.status

    def Resync(self, request: ipam_pb2.ResyncRequest, context: grpc.ServicerContext) -> ipam_pb2.ResyncResponse:
        self.lead(context)
        return ipam_pb2.ResyncResponse(intent_id="i-resync")

    def SetLevel(self, request: level_pb2.SetLevelRequest, context: grpc.ServicerContext) -> level_pb2.SetLevelResponse:
        self.lead(context)
        self.asked = request
        self.status.degradation.level = self.status.degradation.by_hand = request.level
        self.status.degradation.why = f"by hand: {request.why}"
        return level_pb2.SetLevelResponse(degradation=self.status.degradation)

    def ListIntents(
        self, request: ipam_pb2.ListIntentsRequest, context: grpc.ServicerContext
    ) -> ipam_pb2.ListIntentsResponse:
        self.lead(context)
        return ipam_pb2.ListIntentsResponse(intents=[one for one in self.intents if request.node in ("", one.node)])

    def ListDeadLetters(
        self, request: ipam_pb2.ListDeadLettersRequest, context: grpc.ServicerContext
    ) -> ipam_pb2.ListDeadLettersResponse:
        self.lead(context)
        return ipam_pb2.ListDeadLettersResponse(dead_letters=self.letters.values())

    def GetDeadLetter(
        self, request: ipam_pb2.GetDeadLetterRequest, context: grpc.ServicerContext
    ) -> ipam_pb2.GetDeadLetterResponse:
        if request.id not in self.letters:
            fail(context, errors.NotFound(f"no dead letter {request.id}", field="id"))
        return ipam_pb2.GetDeadLetterResponse(dead_letter=self.letters[request.id])

    def ReplayDeadLetter(
        self, request: ipam_pb2.ReplayDeadLetterRequest, context: grpc.ServicerContext
    ) -> ipam_pb2.ReplayDeadLetterResponse:
        del self.letters[request.id]
        self.replayed.append(request.id)
        return ipam_pb2.ReplayDeadLetterResponse(intent_id=f"i-{request.id}")


class FakeNode(node_pb2_grpc.NodeServiceServicer):
    def __init__(self, name: str) -> None:
        self.status = node_pb2.GetStatusResponse(node=name, version="0.1.0", available=5, in_use=1)
        self.endpoints: list[node_pb2.Endpoint] = []
        self.findings: dict[str, list[node_pb2.Finding]] = {"": []}

    def GetStatus(
        self, request: node_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> node_pb2.GetStatusResponse:
        return self.status

    def ListEndpoints(
        self, request: node_pb2.ListEndpointsRequest, context: grpc.ServicerContext
    ) -> node_pb2.ListEndpointsResponse:
        return node_pb2.ListEndpointsResponse(endpoints=self.endpoints)

    def Explain(self, request: node_pb2.ExplainRequest, context: grpc.ServicerContext) -> node_pb2.ExplainResponse:
        unknown = [node_pb2.Finding(level="waiting", subject="lease", message=f"no pod {request.pod} has an address")]
        return node_pb2.ExplainResponse(findings=self.findings.get(request.pod, unknown))


class Datapath(datapath_pb2_grpc.DatapathServiceServicer):
    """The real handlers, which are coroutines, on a loop of their own, asking a fake of the datapath."""

    def __init__(self) -> None:
        self.view = FakeDatapath()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        handlers = DatapathHandlers(self.view)
        for name in (name for name in vars(datapath_pb2_grpc.DatapathServiceServicer) if name[0].isupper()):
            handler = getattr(handlers, name)
            setattr(self, name, self._stream(handler) if inspect.isasyncgenfunction(handler) else self._unary(handler))

    def __enter__(self) -> None:
        self._thread.start()
        self.view.hub.__enter__()

    def __exit__(self, *_: object) -> None:
        self.view.hub.__exit__()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _unary(
        self, handler: Callable[[Any, grpc.ServicerContext], Coroutine[Any, Any, object]]
    ) -> Callable[[Any, grpc.ServicerContext], object]:
        def answer(request: Any, context: grpc.ServicerContext) -> object:
            try:
                return asyncio.run_coroutine_threadsafe(handler(request, context), self._loop).result(30)
            except DatapathError as error:
                fail(context, error)

        return answer

    def _stream(
        self, handler: Callable[[Any, grpc.ServicerContext], AsyncIterator[object]]
    ) -> Callable[[Any, grpc.ServicerContext], Iterator[object]]:
        def answer(request: Any, context: grpc.ServicerContext) -> Iterator[object]:
            messages: queue.Queue[object] = queue.Queue()

            async def read() -> None:
                try:
                    async for message in handler(request, context):
                        messages.put(message)
                    messages.put(None)
                except DatapathError as error:
                    messages.put(error)

            reading = asyncio.run_coroutine_threadsafe(read(), self._loop)

            def leave() -> None:
                reading.cancel()
                messages.put(None)

            context.add_callback(leave)
            while (message := messages.get()) is not None:
                if isinstance(message, DatapathError):
                    fail(context, message)
                yield message

        return answer


@dataclass
class Answer:
    """What a run of the command left: exit code, standard output and error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.err)["error"]
        return found


class Plimsoll(Protocol):
    def __call__(self, *args: str) -> Answer: ...


@dataclass
class Site:
    """registry, ipam-aws and node-1, with the context file that names them."""

    folder: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    ipam: FakeIpam = field(default_factory=FakeIpam)
    standby: FakeIpam = field(default_factory=FakeIpam)
    node: FakeNode = field(default_factory=lambda: FakeNode("node-1"))
    datapath: Datapath = field(default_factory=Datapath)
    servers: dict[str, grpc.Server] = field(default_factory=dict)

    @property
    def context(self) -> Path:
        return self.folder / "context.toml"

    def start(self) -> None:
        self.standby.status.leader = False
        adders: dict[str, Callable[[grpc.Server], None]] = {
            "registry": lambda s: registry_pb2_grpc.add_RegistryServiceServicer_to_server(self.registry, s),
            "ipam-aws": lambda s: ipam_pb2_grpc.add_IpamServiceServicer_to_server(self.ipam, s),
            "standby": lambda s: ipam_pb2_grpc.add_IpamServiceServicer_to_server(self.standby, s),
            "node-1": self._add_node,
        }
        for name, add in adders.items():
            server = grpc.server(ThreadPoolExecutor(2))
            add(server)
            server.add_insecure_port(f"unix:{self.folder}/{name}.sock")
            server.start()
            self.servers[name] = server
        self.context.write_text(
            f'registry = "unix:{self.folder}/registry.sock"\n'
            f'[ipam]\nipam-aws = "unix:{self.folder}/ipam-aws.sock"\n'
            f'[nodes]\nnode-1 = "{self.folder}/node-1.sock"\n'
        )

    def _add_node(self, server: grpc.Server) -> None:
        node_pb2_grpc.add_NodeServiceServicer_to_server(self.node, server)
        datapath_pb2_grpc.add_DatapathServiceServicer_to_server(self.datapath, server)

    def stop(self, *names: str) -> None:
        for name in names or tuple(self.servers):
            self.servers.pop(name).stop(None).wait()


def stamp(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


@pytest.fixture
def plimsoll(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plimsoll:
    """Runs the command in a home of its own, so that no context of this machine is found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PLIMSOLL_CONTEXT", raising=False)

    def run(*args: str) -> Answer:
        result = CliRunner().invoke(app, list(args), prog_name="plimsoll")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def site(plimsoll: Plimsoll, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with two nodes, one pod and one pool; the command finds it by PLIMSOLL_CONTEXT."""
    with tempfile.TemporaryDirectory(prefix="plcli") as folder:
        site = Site(Path(folder))
        site.registry.nodes = {
            "node-1": registry_pb2.Node(
                name="node-1", addresses=["10.0.0.4"], cloud="aws", state=registry_pb2.NODE_STATE_READY, endpoints=1
            ),
            "node-2": registry_pb2.Node(name="node-2", state=registry_pb2.NODE_STATE_READY),
        }
        site.registry.endpoints = [
            registry_pb2.Endpoint(
                id="c0ffee/eth0", node="node-1", pod="shop/web-1", addresses=["10.0.1.9"], interface_id="eni-1"
            )
        ]
        labels = {"io.kubernetes.pod.namespace": "shop", "app": "web"}
        site.registry.identities = [registry_pb2.Identity(number=256, labels=labels, endpoints=1)]
        site.ipam.pools = {"node-1": _pool("node-1")}
        site.ipam.findings = {
            "node-1": [ipam_pb2.Finding(level=ipam_pb2.FINDING_LEVEL_OK, subject="watermark", message="8 free")]
        }
        with site.datapath:
            site.start()
            monkeypatch.setenv("PLIMSOLL_CONTEXT", str(site.context))
            yield site
            site.stop()


def _pool(node: str) -> ipam_pb2.Pool:
    interface = ipam_pb2.Interface(
        id="eni-1",
        subnet_cidr="10.0.1.0/24",
        primary_address="10.0.1.8",
        addresses=[
            ipam_pb2.Address(address="10.0.1.9", state=ipam_pb2.ADDRESS_STATE_IN_USE),
            ipam_pb2.Address(address="10.0.1.10", state=ipam_pb2.ADDRESS_STATE_AVAILABLE),
        ],
    )
    return ipam_pb2.Pool(
        node=ipam_pb2.NodeSpec(name=node, instance_id="i-1", watermarks=ipam_pb2.Watermarks(pre_allocate=8)),
        instance_type="m5.large",
        interfaces=[interface],
        attached=2,
        in_use=1,
        needed=7,
        capacity=27,
        connected=True,
        last_synced_at=stamp(1_700_000_000),
    )
