"""Rows written whole, whether or not they were there."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

# Values in one list of a statement: far below what either database takes.
CHUNK: Final = 500


def upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts `rows`, or replaces those with the same primary key."""
    if rows:
        connection.execute(_statement(table, connection.dialect.name), rows)


@functools.cache
def _statement(table: Table, dialect: str) -> Executable:
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    values = {name: insert.excluded[name] for name in table.c.keys() if name not in keys}  # noqa: SIM118
    return insert.on_conflict_do_update(index_elements=keys, set_=values)


def chunks(values: Sequence[str]) -> Iterator[list[str]]:
    """`values` in lists of at most CHUNK."""
    for start in range(0, len(values), CHUNK):
        yield list(values[start : start + CHUNK])
