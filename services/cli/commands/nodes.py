"""plimsoll nodes list|show|delete"""

from __future__ import annotations

from services.cli.options import ContextFile, Json, Node, group

app = group("Nodes that the registry knows.")


@app.command("list")
def list_(context: ContextFile = None, json: Json = False) -> None:
    """List all nodes with state and heartbeat."""
    from services.api.registry.v1.registry_pb2 import ListNodesRequest
    from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
    from services.cli import context as contexts
    from services.cli.connect import pages, stub_of
    from services.cli.render import Table, aged, show
    from services.cli.views import node_view

    with stub_of(contexts.current(context).need_registry(), RegistryServiceStub) as stub:
        nodes = [node_view(node) for node in pages(stub.ListNodes, ListNodesRequest(), lambda answer: answer.nodes)]
    columns = {
        "node": "name",
        "state": "state",
        "heartbeat": aged("heartbeat_at"),
        "pods": "endpoints",
        "addresses": "addresses",
        "cloud": "cloud",
        "instance": "instance_id",
        "type": "instance_type",
        "zone": "zone",
        "version": "version",
    }
    show(nodes, json, Table.of(nodes, columns, empty="no node has registered"))


@app.command("show")
def show_(name: Node, context: ContextFile = None, json: Json = False) -> None:
    """Show one node, its pool and its pods."""
    from services.api.registry.v1 import registry_pb2 as registry
    from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
    from services.cli import context as contexts
    from services.cli.connect import DEADLINE_S, pages, stub_of
    from services.cli.pools import POOL_PAIRS, pool_of
    from services.cli.render import Table, age, aged, show
    from services.cli.views import endpoint_view, node_view

    found = contexts.current(context)
    with stub_of(found.need_registry(), RegistryServiceStub) as stub:
        node = node_view(stub.GetNode(registry.GetNodeRequest(name=name), timeout=DEADLINE_S).node)
        request = registry.ListEndpointsRequest(node=name)
        pods = [endpoint_view(one) for one in pages(stub.ListEndpoints, request, lambda answer: answer.endpoints)]
    pool, why = pool_of(found, name)
    people = {key: value for key, value in node.items() if not key.endswith("_at")}
    people |= {key: f"{age(node[f'{key}_at'])} ago" for key in ("registered", "heartbeat")}
    columns = {"pod": "pod", "addresses": "addresses", "interface": "interface_id", "age": aged("created_at")}
    show(
        {**node, "pool": pool, "pool_error": why, "pods": pods},
        json,
        Table.of_pairs(people, title=f"node {name}"),
        Table.of_pairs({key: pool[key] for key in POOL_PAIRS}, title="pool") if pool else f"pool: {why}",
        Table.of(pods, columns, title="pods", empty="no pods"),
    )


@app.command()
def delete(name: Node, context: ContextFile = None, json: Json = False) -> None:
    """Forget a node that will not come back. Refused while its heartbeat is fresh."""
    from services.api.registry.v1.registry_pb2 import DeleteNodeRequest
    from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
    from services.cli import context as contexts
    from services.cli.connect import DEADLINE_S, stub_of
    from services.cli.render import show

    with stub_of(contexts.current(context).need_registry(), RegistryServiceStub) as stub:
        stub.DeleteNode(DeleteNodeRequest(name=name), timeout=DEADLINE_S)
    show({"deleted": name}, json, f"node {name} is forgotten")
