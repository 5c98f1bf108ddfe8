"""plimsoll config check|fields"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import Json, group

app = group("Check settings files and list settings.")

Service = Annotated[
    str, typer.Argument(metavar="SERVICE", help="registry, ipam-aws, worker, node.", show_default=False)
]


@app.command()
def check(
    service: Service,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="Settings file, TOML.", show_default=False)],
    json: Json = False,
) -> None:
    """Check a settings file as the service would. Exits 1 and names each wrong field."""
    from services.cli.errors import EXIT_PROBLEM, Unknown
    from services.cli.render import Table, show
    from services.cli.service_settings import problems

    if not config.is_file():
        raise Unknown(f"there is no file {config}", remedy="name the service's settings file with --config FILE")
    found = problems(service, config)
    data = {"service": service, "file": str(config), "ok": not found, "problems": found}
    if not found:
        show(data, json, f"{config}: good for {service}")
        return
    columns = {"field": "field", "problem": "message"}
    show(data, json, Table.of(found, columns, title=f"{config}: not good for {service}", empty="none"))
    raise typer.Exit(EXIT_PROBLEM)


@app.command()
def fields(
    service: Service,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/settings.md.")] = False,
    json: Json = False,
) -> None:
    """List what can be set for a service."""
    from services.cli import service_settings
    from services.cli.render import Table, show

    if markdown:
        typer.echo(service_settings.markdown(service), nl=False)
        return

    found = service_settings.fields(service)
    columns = {key: key for key in ("field", "accepted", "default", "environment", "meaning")}
    show(found, json, Table.of(found, columns, empty="nothing can be set"))
