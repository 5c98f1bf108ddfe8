"""plimsoll node cleanup"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import Json, group

if TYPE_CHECKING:
    from datapath.cleanup import CleanupReport
    from datapath.loader.pins import Inventory

app = group("This machine as a node: taking everything of ours out of it.")

SOCKET = Path("/run/plimsoll/node.sock")
BPF_DIR = Path("/sys/fs/bpf/plimsoll")

_PINNED = ("links", "programs", "maps", "filters")
_NOUNS = {
    "links": "link",
    "programs": "program",
    "maps": "map",
    "filters": "filter",
    "rules": "rule",
    "routes": "route",
    "neighbours": "neighbour",
    "addresses": "address",
    "devices": "device",
}
_NOTHING = "nothing of ours is in the kernel"


@app.callback()
def node() -> None:
    """This machine as a node: taking everything of ours out of it."""


@app.command()
def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also while the daemon runs.")] = False,
    socket: Annotated[Path, typer.Option("--socket", metavar="FILE", help="Where a running daemon answers.")] = SOCKET,
    bpf_dir: Annotated[
        Path, typer.Option("--bpf-dir", metavar="DIR", help="Where the daemon pins its maps.")
    ] = BPF_DIR,
    json: Json = False,
) -> None:
    """Remove programs, maps, routes, rules and devices. Running pods lose their network.

    For uninstalling, and for a release whose maps cannot be carried over. Nothing of others is touched; the journal of
    the node stays.
    """
    import os

    from services.cli.errors import Refused
    from services.cli.render import counted, show

    if os.geteuid() != 0:
        raise Refused("only root may change the kernel", remedy="run it with sudo")
    if not dry_run and not force and _answers(socket):
        raise Refused(
            f"the node daemon runs: it answers on {socket}",
            remedy="stop it first (systemctl stop plimsoll-node), or say --force: it will put back what it can",
        )
    pins, network = _remove(bpf_dir, dry_run)
    found = {key: list(getattr(pins if key in _PINNED else network, key)) for key in _NOUNS}
    there = [counted(len(names), _NOUNS[key]) for key, names in found.items() if names]
    summary = f"{', '.join(there)} {'would be removed' if dry_run else 'removed'}" if there else _NOTHING
    names = [f"{_NOUNS[key]} {name}" for key, names in found.items() for name in names] if dry_run else []
    show({"dry_run": dry_run, **found}, json, *names, summary)


def _remove(bpf_dir: Path, dry_run: bool) -> tuple[Inventory, CleanupReport]:
    """Programs first: they would send packets to devices that are gone."""
    from datapath import cleanup as network
    from datapath.acceleration.sockmap import SockmapAcceleration
    from datapath.errors import DatapathError
    from datapath.loader import pins
    from services.cli.errors import Refused

    try:
        _tell("programs and maps")
        found = pins.inventory(bpf_dir)
        if not dry_run:
            SockmapAcceleration(bpf_dir).disable()  # running connections go through the stack from now on
            pins.remove(bpf_dir)
        _tell("rules, routes and devices")
        return found, network.clean(dry_run=dry_run)
    except DatapathError as error:
        raise Refused(error.message, field=error.field, remedy=error.remedy or "run it again: it goes on") from error
    except OSError as error:
        raise Refused(f"{error.filename or bpf_dir}: {error.strerror}", remedy="run it again: it goes on") from error


def _tell(what: str) -> None:
    """Progress, for somebody who looks."""
    import sys

    from services.cli import invocation

    if sys.stderr.isatty() and not invocation.this.json:
        print(f"looking for {what} ...", file=sys.stderr)


def _answers(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(2)
        try:
            knock.connect(str(path))
        except OSError:
            return False
    return True
