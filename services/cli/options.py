"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.complete import local_nodes, local_pods, node_names
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
LocalNode = Annotated[
    str,
    typer.Option(
        "--node",
        metavar="NODE",
        help="The node daemon to ask, if the context names several.",
        show_default=False,
        autocompletion=local_nodes,
    ),
]
# Which connections or events: values of one option are alternatives, different options must all agree.
Pods = Annotated[
    list[str] | None,
    typer.Option(
        "--pod", metavar="POD", help="Of this pod, namespace/name; may be repeated.", autocompletion=local_pods
    ),
]
Addresses = Annotated[
    list[str] | None,
    typer.Option("--address", metavar="ADDRESS", help="From or to this address or range; may be repeated."),
]
Ports = Annotated[
    list[int] | None, typer.Option("--port", metavar="PORT", help="From or to this port; may be repeated.")
]
Protocols = Annotated[
    list[str] | None,
    typer.Option("--protocol", metavar="NAME", help="tcp, udp, sctp, icmp, icmpv6 or a number; may be repeated."),
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
