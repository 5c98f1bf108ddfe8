"""plimsoll version"""

from __future__ import annotations

from services.cli.options import Json, group

app = group("Print the version.")


@app.command()
def version(json: Json = False) -> None:
    """Print the version."""
    import platform
    from importlib.metadata import version as installed

    from services.cli.render import Table, show

    data = {"version": installed("plimsoll"), "python": platform.python_version(), "kernel": platform.release()}
    show(data, json, Table.of_pairs(data))
