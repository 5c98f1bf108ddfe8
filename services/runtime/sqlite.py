"""SQLite as a service's store: one file, one writer, readers that never wait for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.pool import QueuePool

from services.runtime import apsw_dialect
from services.runtime.backend import READERS, Backend, decode_json, encode_json
from services.runtime.store_error import StoreError, store_error

# The first release in which a checkpoint that resets the log cannot corrupt the database.
FIXED_VERSION: Final = (3, 51, 3)
BUSY_TIMEOUT_MS: Final = 5000
_PRAGMAS: Final = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "temp_store = MEMORY",
)
# What they read is in the kernel's cache already: 256 KB for each instead of 2 MB.
_READER_PRAGMAS: Final = ("query_only = ON", "cache_size = -256")


def open_sqlite(path: Path) -> Backend:
    """Opens or makes the database file (mode 0600). Blocking. Raises StoreError."""
    location = f"SQLite database {path}"
    if apsw_dialect.sqlite_version_info < FIXED_VERSION:
        raise StoreError(
            f"SQLite {apsw_dialect.sqlite_version} can corrupt its write-ahead log",
            kind="precondition",
            remedy=f"install an apsw that bundles SQLite {'.'.join(map(str, FIXED_VERSION))} or newer",
        )
    try:
        _make(path)
        opened = path.stat()
    except OSError as error:
        raise StoreError(
            f"{location} cannot be opened: {error.strerror}",
            kind="precondition",
            field="store",
            remedy="name a file in a folder that exists and that this service may write",
        ) from error

    def verify() -> None:
        # SQLite goes on writing to a file that was deleted; what it acknowledges then is lost with the process.
        with contextlib.suppress(OSError):
            now = path.stat()
            if (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino):
                return
        raise StoreError(
            f"{location} was removed or replaced while it was open",
            remedy="put the file back, or restart the service with the database it should have",
        )

    backend = Backend(
        name="sqlite",
        url=URL.create("sqlite", database=str(path)),
        location=location,
        writer=_engine(path, "BEGIN IMMEDIATE", _PRAGMAS, verify, connections=1),
        readers=_engine(path, "BEGIN", (*_PRAGMAS, *_READER_PRAGMAS), verify, connections=READERS),
        verify=verify,
        passing=lambda error: False,
        exclude=_exclude,
    )
    try:
        with backend.writer.connect() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    except Exception as error:
        backend.dispose()
        raise store_error(error, location) from error
    if mode != "wal":
        backend.dispose()
        raise StoreError(
            f"{location} cannot have a write-ahead log (journal mode {mode})",
            kind="precondition",
            field="store",
            remedy="keep it on a local file system",
        )
    return backend


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # SQLite syncs the folder for files that it makes itself; without it a power cut could take the name of this one.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exclude(connection: Connection, name: str) -> None:
    """BEGIN IMMEDIATE excludes every other writer already."""


def _engine(path: Path, begin: str, pragmas: Sequence[str], verify: Callable[[], None], *, connections: int) -> Engine:
    def connect() -> Any:
        verify()
        return apsw_dialect.connect(str(path), begin=begin, pragmas=pragmas)

    return create_engine(
        "sqlite+apsw://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return="rollback",
        json_serializer=encode_json,
        json_deserializer=decode_json,
    )


__all__ = ["FIXED_VERSION", "open_sqlite"]
