"""Names for shell completion, asked of running services. Silent: whoever presses Tab wants names or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.cli.context import Context


def node_names(incomplete: str) -> list[str]:
    """Names of nodes that the registry knows, else of those in the context."""
    from services.cli import context as contexts
    from services.cli.errors import CliError

    try:
        context = contexts.current(None)
        names = _registered(context) or list(context.nodes)
    except CliError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def local_nodes(incomplete: str) -> list[str]:
    """Names of the node daemons of the context."""
    from services.cli import context as contexts
    from services.cli.errors import CliError

    try:
        names = list(contexts.current(None).nodes)
    except CliError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def local_pods(incomplete: str) -> list[str]:
    """Pods of the node daemons of the context."""
    from services.cli import context as contexts
    from services.cli.endpoints import from_nodes
    from services.cli.errors import CliError

    try:
        pods = {str(one["pod"]) for one in from_nodes(contexts.current(None))}
    except CliError:
        return []
    return sorted(pod for pod in pods if pod and pod.startswith(incomplete))


def _registered(context: Context) -> list[str]:
    from services.api.registry.v1.registry_pb2 import ListNodesRequest
    from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
    from services.cli.connect import pages, stub_of
    from services.cli.errors import CliError

    if context.registry is None:
        return []
    try:
        with stub_of(context.registry, RegistryServiceStub) as stub:
            return [node.name for node in pages(stub.ListNodes, ListNodesRequest(), lambda answer: answer.nodes)]
    except CliError:
        return []
