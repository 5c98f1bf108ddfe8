"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.complete import node_names
from services.cli.invocation import begin, want_json

Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON with stable keys, for programs.", callback=want_json, is_eager=True),
]
ContextFile = Annotated[
    Path | None,
    typer.Option("--context", metavar="FILE", help="Where the services are; see `plimsoll --help`."),
]
RootContextFile = Annotated[
    Path | None,
    typer.Option("--context", metavar="FILE", help="Where the services are, see below.", callback=begin, is_eager=True),
]
Node = Annotated[
    str, typer.Argument(metavar="NODE", help="Name of the node.", show_default=False, autocompletion=node_names)
]
OneNode = Annotated[
    str,
    typer.Option("--node", metavar="NODE", help="This node only.", show_default=False, autocompletion=node_names),
]
IpamName = Annotated[
    str | None,
    typer.Option("--service", metavar="NAME", help="Ask this IPAM service only; default: all of the context."),
]


def group(text: str) -> typer.Typer:
    """A command group with the project's manners: plain help that starts fast, no tracebacks."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
