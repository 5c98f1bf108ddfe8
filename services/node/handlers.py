"""NodeService: what the node daemon tells its administrators on the local socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from datapath.ports import Endpoints
from ipam.local import LocalPool
from ipam.model import Finding, Level
from services.api.node.v1 import node_pb2, node_pb2_grpc
from services.node import explain
from services.node.clients import Connection
from services.node.network import Network
from services.node.pods import Attached, Pods


class NodeHandlers(node_pb2_grpc.NodeServiceServicer):
    def __init__(
        self,
        name: str,
        version: str,
        *,
        pool: LocalPool,
        pods: Pods,
        endpoints: Endpoints,
        network: Network,
        connections: Callable[[], Sequence[Connection]],
        identity_of: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._name = name
        self._version = version
        self._pool = pool
        self._pods = pods
        self._endpoints = endpoints
        self._network = network
        self._connections = connections
        self._identity_of = identity_of
        self._started_at = time.time()

    async def GetStatus(  # noqa: N802
        self, request: node_pb2.GetStatusRequest, context: Any
    ) -> node_pb2.GetStatusResponse:
        counts = self._pool.counts()
        devices = self._network.report.devices
        return node_pb2.GetStatusResponse(
            node=self._name,
            version=self._version,
            connections=[
                node_pb2.Connection(
                    service=one.service,
                    target=one.target,
                    connected=one.state.connected,
                    since=_timestamp(one.state.since_unix_s),
                    last_error=one.state.last_error,
                )
                for one in self._connections()
            ],
            interfaces=[
                node_pb2.InterfaceStatus(
                    id=one.interface.id,
                    device=devices.get(one.interface.id, ""),
                    device_index=one.interface.device_index,
                    available=one.available,
                    in_use=one.in_use,
                    cooling=one.cooling,
                    fenced=one.fenced,
                    problem=one.unusable,
                )
                for one in counts
            ],
            available=sum(one.available for one in counts),
            in_use=len(self._pool.leases()),
            cooling=sum(one.cooling for one in counts),
            fenced=sum(one.fenced for one in counts),
            waiting_pods=self._pool.pending(),
            started_at=_timestamp(self._started_at),
        )

    async def ListEndpoints(  # noqa: N802
        self, request: node_pb2.ListEndpointsRequest, context: Any
    ) -> node_pb2.ListEndpointsResponse:
        endpoints = [_endpoint(one, self._identity_of(str(one.lease.owner))) for one in self._pods.attached()]
        return node_pb2.ListEndpointsResponse(endpoints=endpoints)

    async def Explain(  # noqa: N802
        self, request: node_pb2.ExplainRequest, context: Any
    ) -> node_pb2.ExplainResponse:
        findings = await asyncio.to_thread(self._explain, request.pod)
        messages = [
            node_pb2.Finding(level=one.level, subject=one.subject, message=one.message, remedy=one.remedy)
            for one in findings
        ]
        return node_pb2.ExplainResponse(findings=messages)

    def _explain(self, pod: str) -> list[Finding]:
        node = explain.node_findings(self._pool, {one.service: one.state for one in self._connections()})
        if not pod:
            return node
        found = explain.pod_findings(self._pods.attached(), self._pool, self._endpoints, pod)
        if found is not None:
            return found + (node if any(one.level is Level.WAITING for one in found) else [])
        text = f"no pod {pod} has an address on this node"
        remedy = "see whether the runtime asked this node for it; what follows is said of the next pod"
        return [Finding(Level.WAITING, "lease", text, remedy), *node]


def _endpoint(attached: Attached, identity: int) -> node_pb2.Endpoint:
    lease, endpoint = attached.lease, attached.endpoint
    return node_pb2.Endpoint(
        container_id=lease.owner.container_id,
        interface_name=lease.owner.interface_name,
        pod=lease.pod,
        address=lease.address,
        cloud_interface_id=lease.interface_id,
        host_device=endpoint.host_device,
        mac=endpoint.mac,
        netns=endpoint.netns,
        created_at=_timestamp(lease.created_at),
        address6=endpoint.address6 if endpoint.address else "",
        labels=attached.labels,
        identity=identity,
    )


def _timestamp(seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(int(seconds * 1e9))
    return message
