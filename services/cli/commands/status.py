"""plimsoll status"""

from __future__ import annotations

import typer

from services.cli.options import ContextFile, Json, group

app = group("Whether everything is well.")


@app.command()
def status(context: ContextFile = None, json: Json = False) -> None:
    """Whether everything is well: each service, and what to look at. Exits 1 if there is a problem."""
    from services.cli import context as contexts
    from services.cli.errors import EXIT_PROBLEM
    from services.cli.overview import overview
    from services.cli.render import Table, counted, show, with_remedy

    found = overview(contexts.current(context))
    columns = {
        "service": "name",
        "state": "state",
        "detail": lambda item: item["detail"] or item["error"],
        "target": "target",
    }
    nodes = found["nodes"]
    problems = {"what": "subject", "problem": with_remedy}
    show(
        found,
        json,
        Table.of(found["services"], columns, empty="no services"),
        f"{counted(nodes['total'], 'node')}: {nodes['ready']} ready, {nodes['lost']} lost; "
        f"{counted(nodes['pods'], 'pod')}",
        Table.of(found["problems"], problems, title="problems", empty="none"),
    )
    if not found["ok"]:
        raise typer.Exit(EXIT_PROBLEM)
