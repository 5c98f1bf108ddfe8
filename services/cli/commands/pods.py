"""plimsoll pods list"""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import ContextFile, Json, OneNode, group

app = group("Pods with their addresses.")


@app.callback()
def pods() -> None:
    """Pods with their addresses."""


@app.command("list")
def list_(
    node: OneNode = "",
    local: Annotated[
        bool, typer.Option("--local", help="Ask the node daemons of the context, not the registry.")
    ] = False,
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """List pods with their addresses and interfaces."""
    from services.cli import context as contexts
    from services.cli.endpoints import from_nodes, from_registry
    from services.cli.render import Table, aged, show

    found = contexts.current(context)
    endpoints = from_nodes(found, node) if local else from_registry(found, node)
    columns = {
        "pod": "pod",
        "node": "node",
        "addresses": "addresses",
        "identity": "identity",
        "interface": "interface_id",
        "age": aged("created_at"),
        "id": lambda item: str(item["id"])[:12],
    }
    where = f" on node {node}" if node else ""
    show(endpoints, json, Table.of(endpoints, columns, empty=f"no pods{where}"))
