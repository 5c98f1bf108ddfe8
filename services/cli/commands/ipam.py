"""plimsoll ipam pool list|show, status, resync, intents, level show|set, explain, simulate"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.commands.ipam_simulate import simulate
from services.cli.complete import node_names
from services.cli.options import ContextFile, IpamName, Json, Node, OneNode, group

if TYPE_CHECKING:
    from services.cli.views import View

app = group("Pools of addresses, and why a node or pod has none.")
pool_app = group("Pools of nodes.")
app.add_typer(pool_app, name="pool", rich_help_panel=None)
level_app = group("How much of its work an IPAM service does.")
app.add_typer(level_app, name="level", rich_help_panel=None)
app.command()(simulate)
LEVELS = ("normal", "no-release", "no-mutation", "frozen")


@pool_app.command("list")
def pool_list(service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """List the pool of each node: attached, used, needed and its limits."""
    from services.cli import context as contexts
    from services.cli.pools import pools
    from services.cli.render import Table, show

    found = pools(contexts.current(context), service)
    columns = {
        "node": "node",
        "connected": "connected",
        "type": "instance_type",
        "interfaces": lambda item: f"{item['interface_count']}/{item['interface_limit']}",
        "attached": "attached",
        "used": "in_use",
        "cooling": "cooling",
        "needed": "needed",
        "excess": "excess",
        "capacity": "capacity",
        "waiting": "pending_pods",
        "intents": "open_intents",
        "last error": "last_error",
    }
    show(found, json, Table.of(found, columns, empty="no node has announced itself"))


@pool_app.command("show")
def pool_show(node: Node, service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """Show one node's pool: each interface, each address with its state."""
    from services.cli import context as contexts
    from services.cli.pools import POOL_PAIRS, pool
    from services.cli.render import Table, age, show

    found = pool(contexts.current(context), node, service)
    pairs = {key: found[key] for key in ("instance_id", "instance_type", "zone", *POOL_PAIRS)}
    interfaces: list[View] = found["interfaces"]
    columns = {
        "interface": "id",
        "index": "device_index",
        "subnet": "subnet_id",
        "cidr": "subnet_cidr",
        "primary": "primary_address",
        "gateway": "gateway",
        "addresses": lambda item: _states(item),
    }
    addresses = [{**one, "interface": interface["id"]} for interface in interfaces for one in interface["addresses"]]
    show(
        found,
        json,
        Table.of_pairs(
            {
                **pairs,
                "vpc": ", ".join(sorted({each["vpc_id"] for each in interfaces})),
                "watermarks": found["watermarks"],
                "marks in force": found["marks"],
                "because": found["marks_why"],
                "overrides": ", ".join(found["overrides"]),
                "last_synced": age(found["last_synced_at"]),
            },
            title=f"pool of {node}",
        ),
        Table.of(interfaces, columns, title="interfaces", empty="no interfaces yet"),
        Table.of(
            addresses,
            {"address": "address", "state": "state", "interface": "interface"},
            title="addresses",
            empty="no addresses yet",
        ),
    )


@app.command()
def capacity(service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """Show what nodes could still get, what bounds that, and when subnets run out."""
    from services.cli import context as contexts
    from services.cli.overview import ipam_statuses
    from services.cli.pools import pools
    from services.cli.render import Table, lasting, show

    found = contexts.current(context)
    nodes = pools(found, service)
    subnets = [
        {"service": one["service"], **subnet} for one in ipam_statuses(found, service) for subnet in one["subnets"]
    ]
    show(
        {"nodes": nodes, "subnets": subnets},
        json,
        Table.of(
            nodes,
            {
                **{key: key for key in ("node", "attached", "in_use")},
                "obtainable": lambda item: "?" if item["obtainable"] is None else item["obtainable"],
                "bounded by": "limited_by",
                "by limits": "obtainable_by_limits",
                "by subnets": "obtainable_by_subnets",
            },
            title="nodes",
            empty="no node has announced itself",
        ),
        Table.of(
            subnets,
            {
                **{key: key for key in ("service", "id", "zone", "free")},
                "taken per hour": lambda item: f"{item['taken_per_hour']:.1f}",
                "runs out in": lambda item: (
                    "not in sight" if item["runs_out_in_s"] is None else lasting(item["runs_out_in_s"])
                ),
            },
            title="subnets",
            empty="none seen yet",
        ),
    )


@app.command()
def status(service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """Show each IPAM service: cloud calls and subnets."""
    from services.cli import context as contexts
    from services.cli.overview import ipam_statuses
    from services.cli.render import Table, age, show

    found = ipam_statuses(contexts.current(context), service)
    tables: list[Table | str] = []
    for one in found:
        pairs = {key: value for key, value in one.items() if key not in ("operations", "subnets", "last_resync_at")}
        vpcs = {each["vpc_id"] for each in one["subnets"]}
        tables += [
            Table.of_pairs({**pairs, "last_resync": age(one["last_resync_at"])}, title=one["service"]),
            Table.of(
                one["operations"],
                {key: key for key in ("operation", "calls", "throttled", "failed")},
                title="cloud calls",
                empty="none yet",
            ),
            Table.of(
                one["subnets"],
                {
                    "id": "id",
                    **({"vpc": "vpc_id"} if len(vpcs) > 1 else {}),  # their ranges may be the same
                    **{key: key for key in ("cidr", "zone", "free")},
                    "blocked": lambda item: age(item["blocked_until"]),
                    "why": "blocked_why",
                },
                title="subnets",
                empty="none seen yet",
            ),
        ]
    show(found, json, *tables)


@level_app.command("show")
def level_show(service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """Show the level of each IPAM service, and who set it."""
    from services.cli import context as contexts
    from services.cli.overview import ipam_statuses
    from services.cli.render import Table, aged, show

    found = [
        {key: value for key, value in one.items() if key == "service" or key.startswith("level")}
        for one in ipam_statuses(contexts.current(context), service)
        if one["leader"]
    ]
    columns = {
        "service": "service",
        "level": "level",
        "by hand": "level_by_hand",
        "by budget": "level_by_budget",
        "until": aged("level_until"),
        "why": "level_why",
    }
    show(found, json, Table.of(found, columns, empty="no replica leads"))


@level_app.command("set")
def level_set(
    level: Annotated[str, typer.Argument(metavar="LEVEL", help=f"One of {', '.join(LEVELS)}.")],
    lasts: Annotated[float, typer.Option("--for", min=0, help="Seconds until it ends by itself; 0: never.")] = 3600.0,
    why: Annotated[str, typer.Option(help="For those who see it.")] = "",
    service: IpamName = None,
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """Have a service do less: no-release, no-mutation, frozen; or all of its work again: normal."""
    from google.protobuf.duration_pb2 import Duration

    from services.api.ipam.v1 import level_pb2 as pb
    from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
    from services.cli import context as contexts
    from services.cli.connect import DEADLINE_S, of_leaders, stub_of
    from services.cli.context import Service
    from services.cli.errors import Usage
    from services.cli.render import show
    from services.cli.views import level_view

    if level not in LEVELS:
        raise Usage(f"{level!r} is no level", remedy=f"use one of {', '.join(LEVELS)}")
    number = pb.DegradationLevel.Value("DEGRADATION_LEVEL_" + level.upper().replace("-", "_"))
    duration = Duration()
    duration.FromNanoseconds(int(lasts * 1e9))

    def ask(one: Service) -> View:
        with stub_of(one, IpamServiceStub) as stub:
            answer = stub.SetLevel(pb.SetLevelRequest(level=number, lasts=duration, why=why), timeout=DEADLINE_S)
        return {"service": one.name, **level_view(answer.degradation)}

    found = of_leaders(contexts.current(context).need_ipam(service), ask)
    show(found, json, "\n".join(f"{one['service']}: level {one['level']}" for one in found))


@app.command()
def resync(service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """Ask for a full comparison with the cloud now."""
    from services.api.ipam.v1.ipam_pb2 import ResyncRequest
    from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
    from services.cli import context as contexts
    from services.cli.connect import DEADLINE_S, of_leaders, stub_of
    from services.cli.context import Service
    from services.cli.render import show

    def ask(one: Service) -> View:
        with stub_of(one, IpamServiceStub) as stub:
            answer = stub.Resync(ResyncRequest(), timeout=DEADLINE_S)
        return {"service": one.name, "intent_id": answer.intent_id}

    asked = of_leaders(contexts.current(context).need_ipam(service), ask)
    show(asked, json, "\n".join(f"{one['service']}: intent {one['intent_id']} is under way" for one in asked))


@app.command()
def intents(
    node: OneNode = "",
    service: IpamName = None,
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """List the work that is owed to the cloud."""
    from services.api.ipam.v1.ipam_pb2 import ListIntentsRequest
    from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
    from services.cli import context as contexts
    from services.cli.connect import of_leaders, pages, stub_of
    from services.cli.context import Service
    from services.cli.render import Table, aged, show
    from services.cli.views import intent_view

    def ask(one: Service) -> list[View]:
        with stub_of(one, IpamServiceStub) as stub:
            listed = pages(stub.ListIntents, ListIntentsRequest(node=node), lambda answer: answer.intents)
        return [intent_view(one.name, intent) for intent in listed]

    found = [intent for some in of_leaders(contexts.current(context).need_ipam(service), ask) for intent in some]
    columns = {
        "intent": "id",
        "kind": "kind",
        "node": "node",
        "want": "want",
        "steps": lambda item: f"{sum(step['result'] is not None for step in item['steps'])}/{len(item['steps'])}",
        "attempts": "attempts",
        "age": aged("created_at"),
        "due": aged("not_before"),
        "held by": "holder",
        "last error": "last_error",
    }
    show(found, json, Table.of(found, columns, empty="nothing is owed to the cloud"))


@app.command()
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NODE|POD", help="Node, pod as namespace/name, or container id.", autocompletion=node_names
        ),
    ],
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """Say why a node or a pod has no address. Exits 1 if there is a problem."""
    from services.cli import context as contexts
    from services.cli.errors import EXIT_PROBLEM
    from services.cli.explain import explain as explained
    from services.cli.render import Table, show, with_remedy

    found = explained(contexts.current(context), what)
    columns = {"level": "level", "subject": "subject", "asked": "asked", "message": with_remedy}
    head = f"{found['kind']} {what}" + (f" on node {found['node']}" if found["kind"] == "pod" and found["node"] else "")
    show(found, json, Table.of(found["findings"], columns, title=head, empty="nothing to say"))
    if any(one["level"] == "problem" for one in found["findings"]):
        raise typer.Exit(EXIT_PROBLEM)


def _states(interface: View) -> str:
    counted = Counter(one["state"] for one in interface["addresses"])
    return ", ".join(f"{count} {state}" for state, count in sorted(counted.items())) or "none"
