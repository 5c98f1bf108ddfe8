"""Rows written whole, whether or not they were there."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Executable, Table

# Values in one list of a statement: far below what either database takes.
CHUNK: Final = 500


def upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts `rows`, or replaces those with the same primary key."""
    if rows:
        connection.execute(_statement(table, connection.dialect.name), rows)


@functools.cache
def _statement(table: Table, dialect: str) -> Executable:
    insert: Any
    # Each brings all drivers of its database, so only the one in use is imported.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        insert = postgresql.insert(table)
    else:
        from sqlalchemy.dialects import sqlite

        insert = sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    values = {name: insert.excluded[name] for name in table.c.keys() if name not in keys}  # noqa: SIM118
    statement: Executable = insert.on_conflict_do_update(index_elements=keys, set_=values)
    return statement


def chunks(values: Sequence[str]) -> Iterator[list[str]]:
    """`values` in lists of at most CHUNK."""
    for start in range(0, len(values), CHUNK):
        yield list(values[start : start + CHUNK])
