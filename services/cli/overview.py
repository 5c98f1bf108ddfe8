"""The state of every service of the context, asked side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.api.ipam.v1.ipam_pb2 import GetStatusRequest as IpamStatusRequest
from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
from services.api.node.v1.node_pb2 import GetStatusRequest as NodeStatusRequest
from services.api.node.v1.node_pb2_grpc import NodeServiceStub
from services.api.registry.v1.registry_pb2 import ListNodesRequest
from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from services.cli.connect import DEADLINE_S, ask_all, pages, stub_of
from services.cli.context import Context, Service
from services.cli.errors import CliError, Refused, Unreachable, Usage
from services.cli.render import counted
from services.cli.views import View, ipam_status_view, node_status_view, node_view


def ipam_status(service: Service) -> View:
    with stub_of(service, IpamServiceStub) as stub:
        return ipam_status_view(service.name, stub.GetStatus(IpamStatusRequest(), timeout=DEADLINE_S))


def ipam_statuses(context: Context, name: str | None = None) -> list[View]:
    """Each IPAM service's status. The first that cannot answer fails it."""
    found = []
    for answer in ask_all(context.need_ipam(name), ipam_status):
        if isinstance(answer, CliError):
            raise answer
        found.append(answer)
    return found


def overview(context: Context) -> View:
    """Everything on one page. A service that cannot answer is part of the answer; none answering raises Unreachable."""
    services = context.services()
    if not services:
        raise Usage(f"{context.path} names no service", remedy="add a line registry, or a table [ipam] or [nodes]")
    answers = ask_all(services, _ask)
    rows, problems = [], []
    by_kind: dict[str, list[Any]] = {"registry": [], "ipam": [], "node": []}
    for service, answer in zip(services, answers, strict=True):
        row: View = {"name": service.name, "kind": service.kind, "target": service.target}
        if isinstance(answer, CliError):
            state = "refused" if isinstance(answer, Refused) else "down"
            rows.append({**row, "state": state, "detail": "", "error": answer.message, "remedy": answer.remedy})
            problems.append({"subject": service.name, "message": answer.message, "remedy": answer.remedy})
            continue
        rows.append({**row, "state": "up", "detail": _DETAIL[service.kind](answer), "error": "", "remedy": ""})
        by_kind[service.kind].append(answer)
    if all(row["state"] == "down" for row in rows):
        raise Unreachable(
            f"none of the {len(rows)} services of {context.path} can be reached; {rows[0]['error']}",
            remedy="start them, or name another context with --context FILE",
        )
    nodes = [node for answer in by_kind["registry"] for node in answer]
    problems += _problems(nodes, by_kind["ipam"], by_kind["node"])
    return {
        "ok": not problems,
        "context": str(context.path),
        "services": rows,
        "nodes": {
            "total": len(nodes),
            "ready": sum(node["state"] == "ready" for node in nodes),
            "lost": sum(node["state"] == "lost" for node in nodes),
            "pods": sum(node["endpoints"] for node in nodes),
        },
        "ipam": by_kind["ipam"],
        "node_daemons": by_kind["node"],
        "problems": problems,
    }


def _ask(service: Service) -> Any:
    return _ASK[service.kind](service)


def _ask_registry(service: Service) -> list[View]:
    with stub_of(service, RegistryServiceStub) as stub:
        return [node_view(node) for node in pages(stub.ListNodes, ListNodesRequest(), lambda answer: answer.nodes)]


def _ask_node(service: Service) -> View:
    with stub_of(service, NodeServiceStub) as stub:
        return node_status_view(stub.GetStatus(NodeStatusRequest(), timeout=DEADLINE_S))


_ASK: dict[str, Callable[[Service], Any]] = {"registry": _ask_registry, "ipam": ipam_status, "node": _ask_node}


def _of_registry(nodes: list[View]) -> str:
    return f"{counted(len(nodes), 'node')}, {counted(sum(node['endpoints'] for node in nodes), 'pod')}"


def _of_ipam(status: View) -> str:
    return (
        f"{'leader' if status['leader'] else 'standby'}, {counted(status['nodes'], 'node')}, "
        f"{status['nodes_in_deficit']} in deficit, {status['nodes_at_capacity']} at capacity, "
        f"{counted(status['open_intents'], 'intent')}, {counted(status['dead_letters'], 'dead letter')}, "
        f"{status['api_calls']} API calls, {status['throttled']} throttled"
    )


def _of_node(status: View) -> str:
    cut = [one["service"] for one in status["connections"] if not one["connected"]]
    return (
        f"{status['available']} free, {status['in_use']} used, {status['cooling']} cooling, "
        f"{counted(status['waiting_pods'], 'pod')} waiting, "
        + (f"cut off from {', '.join(cut)}" if cut else "connected")
    )


_DETAIL: dict[str, Callable[[Any], str]] = {"registry": _of_registry, "ipam": _of_ipam, "node": _of_node}


def _problems(nodes: list[View], ipam: list[View], daemons: list[View]) -> list[View]:
    found = [
        _problem(node["name"], "its heartbeat is overdue", "see whether its machine and its node daemon run")
        for node in nodes
        if node["state"] == "lost"
    ]
    if ipam and not any(one["leader"] for one in ipam):
        names = ", ".join(one["service"] for one in ipam)
        found.append(_problem("leader", f"no replica leads among {names}", "see the replicas' logs; is the store up?"))
    for one in ipam:
        if one["level"] != "normal":
            message = f"is at level {one['level']}, {one['level_why']}"
            found.append(_problem(one["service"], message, "plimsoll ipam level show"))
        if one["dead_letters"]:
            message = f"{one['dead_letters']} intents gave up"
            found.append(_problem(one["service"], message, "plimsoll queue dead-letters list"))
    for daemon in daemons:
        found += [
            _problem(
                daemon["node"],
                f"{one['id']} ({one['device'] or 'no device'}): {one['problem']}",
                f"plimsoll ipam explain {daemon['node']}",
            )
            for one in daemon["interfaces"]
            if one["problem"]
        ]
        if daemon["waiting_pods"]:
            waiting = daemon["waiting_pods"]
            message = "a pod waits for an address" if waiting == 1 else f"{waiting} pods wait for an address"
            found.append(_problem(daemon["node"], message, f"plimsoll ipam explain {daemon['node']}"))
    return found


def _problem(subject: str, message: str, remedy: str) -> View:
    return {"subject": subject, "message": message, "remedy": remedy}
