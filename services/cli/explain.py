"""Why a node or a pod has, or has not, its addresses: asks everybody who may know, nearest to the pod first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.api.ipam.v1.ipam_pb2 import ExplainRequest as PoolExplainRequest
from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
from services.api.node.v1.node_pb2 import ExplainRequest as NodeExplainRequest
from services.api.node.v1.node_pb2_grpc import NodeServiceStub
from services.cli.connect import DEADLINE_S, ask_all, stub_of
from services.cli.context import Context, Service
from services.cli.endpoints import from_registry, of_node
from services.cli.errors import CliError, Standby, Unknown
from services.cli.views import View, finding_view, findings_of_node, findings_of_pool

SHORTEST_ID = 6  # characters of a container id that name it


def explain(context: Context, what: str) -> View:
    """Findings about a node, or about a pod given as namespace/name, container id, or container id/interface.

    A service that cannot be asked becomes a finding. Raises Unknown if nobody knows `what`.
    """
    node: View | None = None
    if "/" not in what:
        known, node = _node(context, what)
        if known and node is not None:
            return node
    if (found := _pod(context, what) or node) is not None:
        return found
    raise Unknown(
        f"nobody knows a node or a pod {what}",
        remedy="`plimsoll nodes list` and `plimsoll pods list` name them; no pod waits on the nodes of this context",
    )


def _node(context: Context, name: str) -> tuple[bool, View | None]:
    """Whether it is a node for sure, and what is to be said of it; None if there is no sign of such a node."""
    known, pool = _ask_pools(context, name)
    if name not in context.nodes and not pool:
        return False, None
    local = _ask_nodes(context, [name], "")[1]
    pool = pool or [_silent(name, "no IPAM service knows this node", "is the daemon's `ipam` target set?")]
    found = {"kind": "node", "name": name, "node": name, "pod": None, "findings": [*pool, *local]}
    return bool(known) or name in context.nodes, found


def _pod(context: Context, what: str) -> View | None:
    """What is to be said of a pod that runs, or that may be among those that wait; None if there is neither."""
    endpoint, waiting, findings = _find(context, what)
    if endpoint is None and not waiting and not findings:
        return None
    node = endpoint["node"] if endpoint else waiting[0] if len(waiting) == 1 else ""
    if endpoint is not None:
        text = f"{endpoint['pod'] or endpoint['id']} has {', '.join(endpoint['addresses']) or 'no address'} on {node}"
        findings.append(finding_view("registry", "ok" if endpoint["addresses"] else "waiting", "lease", text, ""))
    local = _ask_nodes(context, [node] if endpoint else waiting, what)[1]
    pools = [finding for name in ([node] if endpoint else waiting) for finding in _ask_pools(context, name)[1]]
    return {"kind": "pod", "name": what, "node": node, "pod": endpoint, "findings": [*findings, *local, *pools]}


def _find(context: Context, what: str) -> tuple[View | None, list[str], list[View]]:
    """The pod, if the registry or a node daemon knows it; else the nodes where pods wait; and who cannot be asked."""
    findings: list[View] = []
    if context.registry is not None:
        try:
            if (endpoint := _named(from_registry(context), what)) is not None:
                return endpoint, [], findings
        except CliError as error:
            findings.append(_silent("registry", error.message, error.remedy))
    waiting: list[str] = []
    nodes = list(context.nodes.values())
    for service, answer in zip(nodes, ask_all(nodes, of_node), strict=True):
        if isinstance(answer, CliError):
            findings.append(_silent(service.name, answer.message, answer.remedy))
            continue
        endpoints, waiting_pods = answer
        if (endpoint := _named(endpoints, what)) is not None:
            return endpoint, [], findings
        if waiting_pods:
            waiting.append(service.name)
    return None, waiting, findings


def _named(endpoints: Sequence[View], what: str) -> View | None:
    for one in endpoints:
        names = (one["pod"], one["id"], one["id"].partition("/")[0])  # an id is CONTAINER/INTERFACE
        if what in names or (len(what) >= SHORTEST_ID and one["id"].startswith(what)):
            return one
    return None


def _ask_pools(context: Context, node: str) -> tuple[str, list[View]]:
    """Which IPAM service knows a node, or "", and what all of them say of it."""

    def ask(service: Service) -> list[View]:
        with stub_of(service, IpamServiceStub) as stub:
            return findings_of_pool(
                service.name, stub.Explain(PoolExplainRequest(node=node), timeout=DEADLINE_S).findings
            )

    return _gather(list(context.ipam.values()), ask)


def _ask_nodes(context: Context, names: Sequence[str], pod: str) -> tuple[str, list[View]]:
    """What the daemons of those nodes say of a pod, or of the next one; and which of them knows it, or ""."""

    def ask(service: Service) -> list[View]:
        with stub_of(service, NodeServiceStub) as stub:
            answer = stub.Explain(NodeExplainRequest(pod=pod), timeout=DEADLINE_S)
        return findings_of_node(service.name, answer.findings)

    return _gather([context.nodes[name] for name in names if name in context.nodes], ask)


def _gather(services: list[Service], ask: Callable[[Service], list[View]]) -> tuple[str, list[View]]:
    """The first service that knows, or "", and all findings, the silence of those that cannot be asked included."""
    known = ""
    findings: list[View] = []
    for service, answer in zip(services, ask_all(services, ask), strict=True):
        if isinstance(answer, Unknown | Standby):
            continue
        if isinstance(answer, CliError):
            findings.append(_silent(service.name, answer.message, answer.remedy))
            continue
        known = known or service.name
        findings += answer
    return known, findings


def _silent(asked: str, message: str, remedy: str) -> View:
    return finding_view(asked, "problem", "service", message, remedy)
