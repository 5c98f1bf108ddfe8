"""plimsoll datapath status|maps|endpoints|drops|addresses|devices|trace, ct, nat, policy, prefilter"""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.commands.datapath_tables import ct, nat, policy, prefilter
from services.cli.complete import local_pods
from services.cli.options import ContextFile, Json, LocalNode, group

app = group("A node's programs in the kernel: what they know, hold and do.")
for _name, _sub in {"ct": ct, "nat": nat, "policy": policy, "prefilter": prefilter}.items():
    app.add_typer(_sub, name=_name, rich_help_panel=None)


@app.command()
def status(node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """Show programs, features, devices and events. Exits 1 if there is a problem."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of, the_node
    from services.cli.datapath_views import status_view
    from services.cli.errors import EXIT_PROBLEM
    from services.cli.render import Table, age, show, with_remedy

    found = contexts.current(context)
    name = the_node(found, node).name
    with datapath_of(found, node) as stub:
        data = status_view(name, stub.GetStatus(wire.GetDatapathStatusRequest(), timeout=DEADLINE_S))
    collected, events = data["garbage_collection"], data["events"]
    pairs = {
        **{key: data[key] for key in ("mode", "kernel", "routing")},
        "families": [family for family in ("ipv4", "ipv6") if data[family]],
        "masquerade": [f"ipv{family}" for family in (4, 6) if data[f"masquerade{family}"]],
        **{key: data[key] for key in ("devices", "endpoints", "generation")},
        "connections collected": f"{collected['deleted']} of {collected['seen']}, {age(collected['last_at'])} ago"
        if collected["last_at"]
        else "not yet",
        "events": f"{events['read']} read, {events['suppressed']} left out, {events['lost']} lost",
    }
    programs = {
        "program": "name",
        "type": "type",
        "verified instructions": "verified_instructions",
        "attached to": lambda item: [f"{one['device']} ({one['hook']}, {one['by']})" for one in item["attachments"]],
    }
    features = {"feature": "name", "in force": "in_force", "detail": "detail"}
    tables: list[Table | str] = [
        Table.of_pairs(pairs, title=f"datapath of {name}"),
        Table.of(data["features"], features, title="features", empty="none"),
        Table.of(data["programs"], programs, title="programs", empty="none is loaded"),
    ]
    if data["problems"]:
        columns = {"what": "subject", "problem": with_remedy}
        tables.append(Table.of(data["problems"], columns, title="problems", empty="none"))
    show(data, json, *tables)
    if data["problems"]:
        raise typer.Exit(EXIT_PROBLEM)


@app.command()
def maps(node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """List the maps with entries, memory and how full they are."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.datapath_views import map_view
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        found = [map_view(one) for one in stub.ListMaps(wire.ListMapsRequest(), timeout=DEADLINE_S).maps]
    columns = {
        "map": "name",
        "type": "type",
        "entries": "entries",
        "at most": "max_entries",
        "full": lambda item: "-" if item["entries"] is None else f"{item['pressure']:.0%}",
        "memory": lambda item: f"{item['memory_bytes'] / 2**20:.1f} MiB",
    }
    show(found, json, Table.of(found, columns, empty="no map is loaded"))


@app.command()
def endpoints(node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """List the pods of the node, as the programs know them."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.datapath_views import endpoint_view
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        answer = stub.ListEndpoints(wire.ListDatapathEndpointsRequest(), timeout=DEADLINE_S)
    found = [endpoint_view(one) for one in answer.endpoints]
    columns = {
        "endpoint": "number",
        "pod": "pod",
        "addresses": "addresses",
        "device": "device",
        "mac": "mac",
        "identity": "identity",
        "flags": "flags",
        "connections": "flows",
        "packets out": "packets_out",
        "in": "packets_in",
    }
    show(found, json, Table.of(found, columns, empty="no pods"))


@app.command()
def drops(node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """Count what was dropped, why, and what to do about it."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.datapath_views import drops_view
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        data = drops_view(stub.GetDrops(wire.GetDropsRequest(), timeout=DEADLINE_S))
    columns = {
        "packets": "packets",
        "bytes": "bytes",
        "hook": "hook",
        "direction": "direction",
        "reason": "reason",
        "meaning": lambda item: f"{item['sentence']}\nremedy: {item['remedy']}",
    }
    passed = {key: key for key in ("packets", "bytes", "hook", "direction")}
    show(
        data,
        json,
        Table.of(data["drops"], columns, title="dropped", empty="nothing was dropped"),
        Table.of(data["passed"], passed, title="passed", empty="nothing yet"),
    )


@app.command()
def addresses(
    address: Annotated[
        str, typer.Argument(metavar="[ADDRESS]", help="Only what covers this address.", show_default=False)
    ] = "",
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """List who has which address, as the programs look it up."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.datapath_views import address_view
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        answer = stub.ListAddresses(wire.ListAddressesRequest(address=address), timeout=DEADLINE_S)
    found = [address_view(one) for one in answer.addresses]
    columns = {key: key for key in ("address", "kind", "identity", "pod", "node", "device", "flags")}
    show(found, json, Table.of(found, columns, empty=f"nobody has {address}: it is the world" if address else "none"))


@app.command()
def devices(node: LocalNode = "", context: ContextFile = None, json: Json = False) -> None:
    """List the devices that lead out of the node."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of
    from services.cli.datapath_views import device_view
    from services.cli.render import Table, show

    with datapath_of(contexts.current(context), node) as stub:
        found = [device_view(one) for one in stub.ListDevices(wire.ListDevicesRequest(), timeout=DEADLINE_S).devices]
    columns = {
        "device": "name",
        "kind": "kind",
        "mac": "mac",
        "mtu": "mtu",
        "masquerade": lambda item: [one for one in (item["masquerade4"], item["masquerade6"]) if one],
        "programs": lambda item: [f"{one['hook']} ({one['by']})" for one in item["attachments"]],
    }
    show(found, json, Table.of(found, columns, empty="no device leads out of the node"))


@app.command()
def trace(
    pod: Annotated[
        str,
        typer.Argument(
            metavar="POD", help="A pod of the node, namespace/name.", show_default=False, autocompletion=local_pods
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(metavar="DEST[:PORT]", help="Address, [IPv6], or pod as namespace/name.", show_default=False),
    ],
    protocol: Annotated[
        str,
        typer.Option("--protocol", metavar="NAME", help="tcp, udp or icmp; default: tcp with a port, icmp without."),
    ] = "",
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """Say what would become of a packet, step by step; none is sent. Exits 1 if it would be dropped."""
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.datapath import DEADLINE_S, datapath_of, split_destination
    from services.cli.datapath_views import end_text, trace_view
    from services.cli.errors import EXIT_PROBLEM
    from services.cli.render import Table, show

    host, port = split_destination(destination)
    request = wire.TraceRequest(pod=pod, destination=host, port=port, protocol=protocol)
    with datapath_of(contexts.current(context), node) as stub:
        data = trace_view(stub.Trace(request, timeout=DEADLINE_S))
    head = f"{data['protocol']} {end_text(data['source'])} > {end_text(data['destination'])}"
    end = f"{data['verdict']}: {data['sentence']}"
    if data["remedy"]:
        end += f"\nremedy: {data['remedy']}"
    steps = Table.of(data["steps"], {"step": "name", "found": "sentence"}, title=head, empty="no step was told")
    show(data, json, steps, end)
    if data["verdict"] == "dropped":
        raise typer.Exit(EXIT_PROBLEM)
