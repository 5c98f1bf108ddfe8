"""The root of the `plimsoll` command."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import typer

from services.cli.errors import EXIT_FAULT
from services.cli.lazy import Lazy, LazyGroup
from services.cli.options import RootContextFile

EPILOG = (
    "The context file says where the services are. It is looked for in this order: --context, $PLIMSOLL_CONTEXT, "
    "~/.config/plimsoll/context.toml, /etc/plimsoll/context.toml, a lab that runs on this machine. "
    "Exit codes: 0 ok, 1 the answer is bad news, 2 wrong usage or a wrong file, 3 a service cannot be reached, "
    "4 not found, 5 refused, 70 a fault of the command itself."
)


class Root(LazyGroup):
    table: ClassVar = {
        "completion": Lazy("services.cli.commands.completion", "Print the completion script of a shell."),
        "config": Lazy("services.cli.commands.config", "Check settings files and list settings."),
        "datapath": Lazy(
            "services.cli.commands.datapath", "A node's programs in the kernel: what they know, hold and do."
        ),
        "ipam": Lazy("services.cli.commands.ipam", "Pools of addresses, and why a node or pod has none."),
        "identities": Lazy("services.cli.commands.identities", "Identities: numbers of sets of labels."),
        "monitor": Lazy("services.cli.commands.monitor", "What happens to packets, as it happens."),
        "node": Lazy("services.cli.commands.node", "This machine as a node: taking everything of ours out of it."),
        "nodes": Lazy("services.cli.commands.nodes", "Nodes that the registry knows."),
        "pki": Lazy("services.cli.commands.pki", "Certificates of labs and small sites."),
        "pods": Lazy("services.cli.commands.pods", "Pods with their addresses."),
        "queue": Lazy("services.cli.commands.queue", "Work that gave up, and its replay."),
        "status": Lazy("services.cli.commands.status", "Whether everything is well."),
        "version": Lazy("services.cli.commands.version", "Print the version."),
    }
    extension_help: ClassVar = {"lab": "Run a whole Plimsoll on this machine."}


app = typer.Typer(
    cls=Root,
    help="Asks and steers Plimsoll's services.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(context: RootContextFile = None) -> None:
    """Asks and steers Plimsoll's services."""


def main() -> None:
    """Entry point. What nobody foresaw ends in one line, not in a traceback."""
    try:
        app(prog_name="plimsoll")
    except Exception as error:
        if os.environ.get("PLIMSOLL_DEBUG"):
            raise
        print(f"plimsoll: a fault of the command itself: {type(error).__name__}: {error}", file=sys.stderr)
        print("  remedy: report it, with what PLIMSOLL_DEBUG=1 shows", file=sys.stderr)
        sys.exit(EXIT_FAULT)
