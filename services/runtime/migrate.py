"""Brings a database's tables to their newest version in a process of its own, so that Alembic's 12 MB end with it.

Nothing is started when they are at it already, as they are but for the first start of a release.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from functools import partial
from importlib.resources import files
from typing import Any, Final

from sqlalchemy import Connection, column, inspect, select, table

from services.runtime import logging as runtime_logging
from services.runtime.store import Database, StoreError, migrate, open_database

_VERSION: Final = re.compile(r"(\d{4})_\w+\.py")
_FIELDS: Final = ("kind", "field", "remedy", "retry_after_s")


def version_table(package: str) -> str:
    """Name of the table with the version of `package`: "ipam_version" for "ipam.migrations"."""
    return f"{package.removesuffix('.migrations').rpartition('.')[2]}_version"


def newest(package: str) -> str:
    """The newest version of `package`: modules of versions are named after them, as in "0001_pools.py"."""
    found = (_VERSION.fullmatch(each.name) for each in (files(package) / "versions").iterdir())
    return max(match[1] for match in found if match is not None)


async def migrate_apart(database: Database, package: str) -> None:
    """As `migrate`, and raises what that does."""
    if await database.read(partial(_at, version=newest(package), name=version_table(package))):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, package,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    # Not as an argument: others on this machine can read those, and the URL may have a password.
    url = database.url.render_as_string(hide_password=False)
    try:
        out, _ = await child.communicate(url.encode())
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            child.kill()
        await child.wait()
        raise
    if out:
        said: dict[str, Any] = json.loads(out)
        raise StoreError(said.pop("message"), **said)
    if child.returncode != 0:
        raise StoreError(
            f"{database.location}: the migrations of {package} ended with {child.returncode}",
            remedy="what they wrote to standard error says why; what they had begun is undone",
        )


def _at(connection: Connection, *, version: str, name: str) -> bool:
    if not inspect(connection).has_table(name):
        return False
    return connection.execute(select(column("version_num")).select_from(table(name))).scalars().all() == [version]


async def _main(package: str, url: str) -> None:
    # To standard error, whatever is logged: the answer alone goes to standard output.
    runtime_logging.configure("migrate", level="warning")
    try:
        async with open_database(url) as database:
            await migrate(database, package)
    except StoreError as error:
        said = {"message": error.message, **{name: getattr(error, name) for name in _FIELDS}}
        sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.stdin.read()))


__all__ = ["migrate_apart", "newest", "version_table"]
