"""SQLAlchemy on the SQLite that apsw bundles, instead of the one that Python was linked with.

Debian 12's SQLite can corrupt a database when a checkpoint resets the write-ahead log while another connection writes;
the bundled one is fixed. This module is both the DBAPI that SQLAlchemy asks for and its dialect, "sqlite+apsw".

Results are fetched when a statement is executed: no statement stays open to hold a transaction.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import apsw
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import URL

apilevel: Final = "2.0"
paramstyle: Final = "qmark"
threadsafety: Final = 1
sqlite_version: Final = apsw.sqlite_lib_version()
sqlite_version_info: Final = tuple(int(part) for part in sqlite_version.split("."))

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Warning(Exception):
    pass


class Error(Exception):
    pass


class InterfaceError(Error):
    pass


class DatabaseError(Error):
    pass


class DataError(DatabaseError):
    pass


class OperationalError(DatabaseError):
    pass


class IntegrityError(DatabaseError):
    pass


class InternalError(DatabaseError):
    pass


class ProgrammingError(DatabaseError):
    pass


class NotSupportedError(DatabaseError):
    pass


_CLASSES: Final[tuple[tuple[type[Exception], type[Error]], ...]] = (
    (apsw.ConstraintError, IntegrityError),
    (apsw.MismatchError, DataError),
    (apsw.TooBigError, DataError),
    (apsw.BindingsError, ProgrammingError),
    (apsw.MisuseError, ProgrammingError),
    (apsw.ConnectionClosedError, ProgrammingError),
    (apsw.InternalError, InternalError),
    (apsw.Error, OperationalError),
)


def _translated(call: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(call)
    def translated(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return call(*args, **kwargs)
        except apsw.Error as error:
            kind = next(ours for theirs, ours in _CLASSES if isinstance(error, theirs))
            raise kind(str(error)) from error

    return translated


class Cursor:
    """DBAPI cursor with all its rows in memory."""

    arraysize = 1

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        self._cursor = database.cursor()
        self._rows: list[Any] = []
        self._next = 0
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def _describe(self, cursor: Any, statement: str, parameters: Any) -> bool:
        columns = cursor.get_description()
        # Only now: SQLite no longer tells the columns of a statement that has ended, with no row at all for instance.
        self.description = tuple((name, None, None, None, None, None, None) for name, _ in columns) or None
        return True

    @_translated
    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self.description = None
        self._next = 0
        self._cursor.exec_trace = self._describe
        self._rows = self._cursor.execute(statement, parameters).fetchall()
        if self.description is None:
            self.rowcount = self._database.changes()
            self.lastrowid = self._database.last_insert_rowid()

    @_translated
    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        self.description = None
        self._rows, self._next = [], 0
        before = self._database.total_changes()
        self._cursor.exec_trace = None
        self._cursor.executemany(statement, parameters)
        self.rowcount = self._database.total_changes() - before

    def fetchone(self) -> Any:
        if self._next >= len(self._rows):
            return None
        self._next += 1
        return self._rows[self._next - 1]

    def fetchmany(self, size: int | None = None) -> list[Any]:
        start, self._next = self._next, self._next + (size or self.arraysize)
        return self._rows[start : self._next]

    def fetchall(self) -> list[Any]:
        rows = self._rows[self._next :] if self._next else self._rows
        self._rows, self._next = [], 0
        return rows

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Nothing to prepare: SQLite's values carry their own types."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Nothing to prepare: rows are as long as they are."""

    def close(self) -> None:
        self._rows = []
        self._cursor.close()


class Connection:
    """DBAPI connection. :param begin: the statement that starts a transaction."""

    def __init__(self, database: apsw.Connection, begin: str) -> None:
        self.database = database
        self._begin = begin
        self._begun = False

    def cursor(self) -> Cursor:
        return Cursor(self.database)

    @_translated
    def begin(self) -> None:
        if not self.database.in_transaction:
            self.database.execute(self._begin)
            self._begun = True

    @_translated
    def commit(self) -> None:
        if self._begun:
            # Raises when SQLite has rolled back by itself meanwhile, of an I/O error for instance.
            self.database.execute("COMMIT")
            self._begun = False

    @_translated
    def rollback(self) -> None:
        self._begun = False
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")

    @_translated
    def close(self) -> None:
        self.database.close()


@_translated
def connect(path: str, *, begin: str = "BEGIN", pragmas: Sequence[str] = ()) -> Connection:
    """Opens the database file. :param pragmas: statements run first, "synchronous = FULL" for instance."""
    # Never created here: a database that was lost must not come back empty.
    database = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=256)
    try:
        for pragma in pragmas:
            database.execute(f"PRAGMA {pragma}").fetchall()
    except apsw.Error:
        database.close()
        raise
    return Connection(database, begin)


class ApswDialect(SQLiteDialect):
    driver = "apsw"
    default_paramstyle = "qmark"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return sys.modules[__name__]

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        return [url.database], {}

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        return sqlite_version_info

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.begin()

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return isinstance(e.__cause__, apsw.ConnectionClosedError)


registry.register("sqlite.apsw", __name__, "ApswDialect")
