"""Pods, as the registry or the node daemons tell them."""

from __future__ import annotations

from services.api.node.v1 import node_pb2
from services.api.node.v1.node_pb2_grpc import NodeServiceStub
from services.api.registry.v1.registry_pb2 import GetNodeRequest, ListEndpointsRequest
from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from services.cli.connect import DEADLINE_S, ask_all, pages, stub_of
from services.cli.context import Context, Service
from services.cli.errors import CliError, Unknown
from services.cli.views import View, endpoint_view, local_endpoint_view


def from_registry(context: Context, node: str = "") -> list[View]:
    """Pods of all nodes, or of one. Raises Unknown for a node that the registry does not know."""
    with stub_of(context.need_registry(), RegistryServiceStub) as stub:
        request = ListEndpointsRequest(node=node)
        found = [endpoint_view(one) for one in pages(stub.ListEndpoints, request, lambda answer: answer.endpoints)]
        if node and not found:
            stub.GetNode(GetNodeRequest(name=node), timeout=DEADLINE_S)
    return found


def from_nodes(context: Context, node: str = "") -> list[View]:
    """Pods as the node daemons' own sockets tell them; the first daemon that cannot be reached fails it."""
    if not context.nodes or (node and node not in context.nodes):
        raise Unknown(
            f"{context.path} names no socket of {f'node {node}' if node else 'a node'}",
            remedy='run this on the node, and add a line to the table [nodes]: NAME = "unix:/run/plimsoll/node.sock"',
        )
    asked = [context.nodes[node]] if node else list(context.nodes.values())
    found: list[View] = []
    for answer in ask_all(asked, of_node):
        if isinstance(answer, CliError):
            raise answer
        found.extend(answer[0])
    return found


def of_node(service: Service) -> tuple[list[View], int]:
    """Pods of one node daemon, and how many wait there for an address."""
    with stub_of(service, NodeServiceStub) as stub:
        answer = stub.ListEndpoints(node_pb2.ListEndpointsRequest(), timeout=DEADLINE_S)
        status = stub.GetStatus(node_pb2.GetStatusRequest(), timeout=DEADLINE_S)
    return [local_endpoint_view(service.name, one) for one in answer.endpoints], status.waiting_pods
