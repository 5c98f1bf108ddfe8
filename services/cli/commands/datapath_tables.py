"""plimsoll datapath ct list|flush, nat list, policy list, prefilter list|add|delete"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.complete import local_pods
from services.cli.options import Addresses, ContextFile, Json, LocalNode, Pods, Ports, Protocols, group

if TYPE_CHECKING:
    from services.api.node.v1.datapath_pb2 import UpdatePrefilterRequest
    from services.cli.views import View

ct = group("Connections that the programs track.")
nat = group("Translations of masquerade.")
policy = group("What pods' policies hold.")
prefilter = group("Ranges that are dropped before all else.")

Limit = Annotated[int, typer.Option("--limit", metavar="N", min=0, help="At most so many; 0: all.")]
Ranges = Annotated[list[str], typer.Argument(metavar="RANGE...", help="Such as 203.0.113.0/24.", show_default=False)]


@ct.command("list")
def ct_list(
    pod: Pods = None,
    address: Addresses = None,
    port: Ports = None,
    protocol: Protocols = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="WORD", help="opening, open or closing; may be repeated.")
    ] = None,
    order: Annotated[
        str, typer.Option("--order", metavar="WORD", help="First: bytes, packets, newest, oldest or expires.")
    ] = "none",
    limit: Limit = 1000,
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """List connections with state, traffic each way, and what becomes of it."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import datapath_of, flow_filter, streamed
    from services.cli.datapath_views import flow_view
    from services.cli.render import Table, show

    request = wire.ListFlowsRequest(
        filter=flow_filter(pod or [], address or [], port or [], protocol or []),
        limit=limit,
        states=state or [],
        order=order,
    )
    with datapath_of(contexts.current(context), node) as stub:
        found = [flow_view(one) for some in streamed(stub.ListFlows(request)) for one in some.flows]
    columns = {
        "protocol": "protocol",
        "from": lambda item: _end(item["source"]),
        "to": lambda item: _end(item["destination"]),
        "state": "state",
        "age": lambda item: _lasting(item["age_s"]),
        "expires": lambda item: _lasting(item["expires_s"]),
        "packets": lambda item: _ways(item, "packets"),
        "bytes": lambda item: _ways(item, "bytes"),
        "goes to": lambda item: _goes(item["forth"]),
        "leaves as": _translated,
    }
    show(found, json, Table.of(found, columns, empty="no connections"), *_cut(len(found), limit))


@ct.command("flush")
def ct_flush(
    pod: Pods = None,
    address: Addresses = None,
    port: Ports = None,
    protocol: Protocols = None,
    all_: Annotated[bool, typer.Option("--all", help="All connections of the node.")] = False,
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """Forget connections: their next packets are decided anew. Masqueraded ones break."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import datapath_of, flow_filter
    from services.cli.render import counted, show

    wanted = flow_filter(pod or [], address or [], port or [], protocol or [])
    with datapath_of(contexts.current(context), node) as stub:
        answer = stub.FlushFlows(wire.FlushFlowsRequest(filter=wanted, all=all_), timeout=60.0)
    show({"deleted": answer.deleted}, json, f"{counted(answer.deleted, 'connection')} forgotten")


@nat.command("list")
def nat_list(
    pod: Pods = None,
    address: Addresses = None,
    port: Ports = None,
    protocol: Protocols = None,
    limit: Limit = 1000,
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """List which address and port pods' connections leave the cluster with."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import datapath_of, flow_filter, streamed
    from services.cli.datapath_views import translation_view
    from services.cli.render import Table, show

    request = wire.ListNatRequest(filter=flow_filter(pod or [], address or [], port or [], protocol or []), limit=limit)
    with datapath_of(contexts.current(context), node) as stub:
        found = [translation_view(one) for some in streamed(stub.ListNat(request)) for one in some.translations]
    columns = {
        "protocol": "protocol",
        "from": lambda item: _end(item["source"]),
        "leaves as": _translated,
        "to": lambda item: _end(item["destination"]),
        "age": lambda item: _lasting(item["age_s"]),
        "expires": lambda item: _lasting(item["expires_s"]),
    }
    show(found, json, Table.of(found, columns, empty="nothing is translated"), *_cut(len(found), limit))


@nat.callback()
def nat_group() -> None:
    """Translations of masquerade."""


@policy.command("list")
def policy_list(
    pod: Annotated[
        str,
        typer.Argument(
            metavar="[POD]", help="Only this pod, namespace/name.", show_default=False, autocompletion=local_pods
        ),
    ] = "",
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """List what pods may send and be sent, by peer, protocol and port."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.datapath_views import policy_view
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        answer = stub.ListPolicies(wire.ListPoliciesRequest(pod=pod), timeout=DEADLINE_S)
    found = [policy_view(one) for one in answer.policies]
    columns = {
        "pod": "pod",
        "direction": "direction",
        "peer": lambda item: item["identity"] or "any",
        "protocol": lambda item: item["protocol"] or "any",
        "ports": _ports,
        "verdict": "verdict",
        "rule": "rule",
        "connections": "packets",
    }
    show(found, json, Table.of(found, columns, empty="no policy: everything is allowed"))


@policy.callback()
def policy_group() -> None:
    """What pods' policies hold."""


@prefilter.command("list")
def prefilter_list(node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """List the ranges that are blocked."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        answer = stub.ListPrefilter(wire.ListPrefilterRequest(), timeout=DEADLINE_S)
    ranges = [
        {"range": one.range, "number": one.number, "packets": one.packets, "bytes": one.bytes} for one in answer.ranges
    ]
    columns = {key: key for key in ("range", "packets", "bytes")}
    notes = [] if answer.in_force else ["the prefilter is attached to no device: nothing is dropped"]
    table = Table.of(ranges, columns, empty="nothing is blocked")
    show({"in_force": answer.in_force, "ranges": ranges}, json, table, *notes)


@prefilter.command("add")
def prefilter_add(
    ranges: Ranges,
    force: Annotated[bool, typer.Option("--force", help="Also ranges that hold addresses of the node.")] = False,
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """Block ranges. They stay blocked until they are deleted, also while the daemon is away."""
    from services.api.node.v1.datapath_pb2 import UpdatePrefilterRequest
    from services.cli.render import counted, show

    answer = _update(UpdatePrefilterRequest(add=ranges, force=force), node, context)
    show(answer, json, f"{counted(answer['added'], 'range')} added")


@prefilter.command("delete")
def prefilter_delete(ranges: Ranges, node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """Let ranges pass again."""
    from services.api.node.v1.datapath_pb2 import UpdatePrefilterRequest
    from services.cli.render import counted, show

    answer = _update(UpdatePrefilterRequest(delete=ranges), node, context)
    show(answer, json, f"{counted(answer['deleted'], 'range')} deleted")


def _update(request: UpdatePrefilterRequest, node: str, context: ContextFile) -> dict[str, int]:
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of

    with datapath_of(contexts.current(context), node) as stub:
        answer = stub.UpdatePrefilter(request, timeout=DEADLINE_S)
    return {"added": answer.added, "deleted": answer.deleted}


def _end(end: View) -> str:
    from services.cli.datapath_views import end_text

    return end_text(end)


def _lasting(seconds: float) -> str:
    from services.cli.render import lasting

    return "due" if seconds < 0 else lasting(seconds)


def _ways(item: View, key: str) -> str:
    return f"{item['forth'][key]} / {item['back'][key]}"


def _goes(way: View) -> str:
    if way["denied"]:
        return f"dropped: {way['denied']}"
    return f"{way['action']} {way['device']}".rstrip()


def _translated(item: View) -> str:
    end = {"address": item["translated_address"], "port": item["translated_port"], "pod": "", "identity": 0}
    return _end(end) if item["translated_address"] else "-"


def _ports(item: View) -> str:
    first, last = item["first_port"], item["last_port"]
    if (first, last) == (0, 65535):
        return "any"
    return str(first) if first == last else f"{first}-{last}"


def _cut(found: int, limit: int) -> list[str]:
    return [f"the first {limit}; more with --limit"] if limit and found >= limit else []
