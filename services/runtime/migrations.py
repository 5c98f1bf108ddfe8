"""Versions of a package's tables, by Alembic, run within the process that asks for it.

A package of migrations is a folder with `versions/`: one module per version, each with `revision`, `down_revision` and
`upgrade()`. Several packages may share a database; each keeps its version in a table of its own.
"""

from __future__ import annotations

import threading
from importlib.resources import files
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from services.runtime.migrate import version_table
from services.runtime.store_error import StoreError

_alembic = threading.Lock()  # its `op` is one for the whole process


def scripts(package: str) -> ScriptDirectory:
    """The versions of `package`."""
    folder = files(package)
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


def current(connection: Connection, package: str) -> str | None:
    """Version of the package's tables in the database, None when there are none yet."""
    return MigrationContext.configure(connection, opts={"version_table": version_table(package)}).get_current_revision()


def upgrade(connection: Connection, *, package: str, location: str, to: str = "head") -> None:
    """Brings the tables to version `to`, within the connection's transaction. Raises StoreError."""
    directory = scripts(package)

    def steps(revision: Any, context: MigrationContext) -> Any:
        return directory._upgrade_revs(to, revision)

    try:
        with _alembic, EnvironmentContext(Config(), directory, fn=steps, destination_rev=to) as environment:
            environment.configure(connection=connection, version_table=version_table(package))
            environment.run_migrations()
    except CommandError as error:
        raise StoreError(
            f"{location} has version {current(connection, package)} of the tables of {package}, which this release, "
            f"at version {directory.get_current_head()}, does not know",
            kind="precondition",
            field="store",
            remedy="start the newer release that wrote it, or restore the backup from before that release",
        ) from error


__all__ = ["current", "scripts", "upgrade", "version_table"]
