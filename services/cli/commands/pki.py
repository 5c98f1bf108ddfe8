"""plimsoll pki init|issue|show|renew"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import Json, group

if TYPE_CHECKING:
    from services.runtime.pki import Issued

app = group("Certificates of labs and small sites: an authority in a folder, and what it issues.")

Folder = Annotated[Path, typer.Option("--folder", metavar="DIR", help="Folder of the authority: ca.pem and ca.key.")]
Days = Annotated[int, typer.Option(min=1, max=36500, metavar="N", help="Days of validity.")]

DEFAULT_FOLDER = Path("/etc/plimsoll/pki")
WARN_DAYS = 30


class Kind(enum.StrEnum):
    SERVICE = "service"
    NODE = "node"


@app.command()
def init(
    folder: Folder = DEFAULT_FOLDER,
    trust_domain: Annotated[str, typer.Option(metavar="NAME", help="Whose names it may certify.")] = "plimsoll.local",
    days: Days = 3650,
    json: Json = False,
) -> None:
    """Make an authority. Refused if the folder holds one."""
    from services.cli.render import show
    from services.runtime import pki

    with _faults():
        path = pki.create_ca(folder, trust_domain=trust_domain, days=days)
    data = {"ca": str(path), "key": str(path.with_suffix(".key")), "trust_domain": trust_domain}
    show(data, json, f"{path}: authority of {trust_domain}; keep {data['key']} secret, and off the nodes")


@app.command()
def issue(
    kind: Annotated[Kind, typer.Argument(help="Whom it is for.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="registry, ipam-aws, worker, cli, or a node's name.")],
    folder: Folder = DEFAULT_FOLDER,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write; default: the authority's.")] = None,
    dns: Annotated[list[str] | None, typer.Option(metavar="NAME", help="One more DNS name; may be repeated.")] = None,
    ip: Annotated[list[str] | None, typer.Option(metavar="ADDRESS", help="One more address; may be repeated.")] = None,
    days: Days = 365,
    json: Json = False,
) -> None:
    """Issue a certificate and its key. An older one of the same name is replaced."""
    from services.cli.render import show
    from services.runtime import pki

    with _faults():
        issued = pki.issue(folder, out or folder, kind.value, name, dns=dns or (), ips=ip or (), days=days)
    data = _issued(issued)
    show(data, json, f"{data['identity']}: {data['certificate']}, {data['key']}, valid until {data['expires_at']}")


@app.command("show")
def show_(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Certificates; default: all.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    warn_days: Annotated[int, typer.Option(metavar="N", help="Exit 1 if one has fewer days left.")] = WARN_DAYS,
    json: Json = False,
) -> None:
    """Show certificates and the days they have left. Exits 1 if one has expired or soon will."""
    import datetime as dt

    from services.cli.certificates import in_folder, view
    from services.cli.errors import EXIT_PROBLEM
    from services.cli.render import Table, show

    now = dt.datetime.now(dt.UTC)
    with _faults():
        found = [view(path, now) for path in files or in_folder(folder)]
    columns = {"file": "file", "identity": "identity", "days left": "days_left", "dns": "dns", "ips": "ips"}
    show(found, json, Table.of(found, columns, empty="none"))
    if any(one["days_left"] < warn_days for one in found):
        raise typer.Exit(EXIT_PROBLEM)


@app.command()
def renew(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Certificates; default: all.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where they lie; default: the authority's.")] = None,
    within_days: Annotated[int, typer.Option(metavar="N", help="Only those with fewer days left.")] = WARN_DAYS,
    days: Days = 365,
    json: Json = False,
) -> None:
    """Replace certificates that soon expire. Services take the new ones up as they run."""
    import datetime as dt

    from services.cli.certificates import in_folder, view
    from services.cli.certificates import renew as renewed
    from services.cli.render import show

    now = dt.datetime.now(dt.UTC)
    with _faults():
        paths = files or [path for path in in_folder(out or folder) if path.name != "ca.pem"]
        due = [path for path in paths if view(path, now)["days_left"] < within_days]
        done = [_issued(renewed(folder, path, days)) for path in due]
    lines = [f"{one['identity']}: {one['certificate']}, valid until {one['expires_at']}" for one in done]
    show(done, json, "\n".join(lines) or f"no certificate expires within {within_days} days")


def _issued(issued: Issued) -> dict[str, str]:
    return {
        "identity": issued.uri,
        "ca": str(issued.ca),
        "certificate": str(issued.certificate),
        "key": str(issued.key),
        "expires_at": issued.expires_at.isoformat(),
    }


@contextmanager
def _faults() -> Iterator[None]:
    """Faults of the authority and its files as what the command reports."""
    from services.cli.certificates import translate
    from services.cli.errors import Refused
    from services.runtime.errors import RuntimeFault

    try:
        yield
    except RuntimeFault as error:
        raise translate(error) from error
    except PermissionError as error:
        raise Refused(f"{error.filename}: permission denied", remedy="run as the owner of the folder") from error
    except OSError as error:
        raise Refused(str(error), remedy="correct the path, or make room") from error
