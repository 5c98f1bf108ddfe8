"""PostgreSQL as a service's store, for replicas on many machines."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from services.runtime.backend import READERS, Backend, decode_json, encode_json
from services.runtime.masking import without_secrets
from services.runtime.store_error import store_error

# Serialisation failure, deadlock; shutting down, crashed, starting up.
_PASSING_STATES: Final = frozenset({"40001", "40P01", "57P01", "57P02", "57P03"})
_CONNECT_ARGS: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    # A peer that vanished without a word is noticed within these, instead of after the kernel's two hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=30s -c lock_timeout=25s -c idle_in_transaction_session_timeout=60s",
}


def open_postgres(url: URL) -> Backend:
    """Connects to the server of `url` ("postgresql://user@host/database"). Blocking. Raises StoreError."""
    location = f"PostgreSQL database {without_secrets(url.render_as_string(hide_password=True))}"
    driver = url.set(drivername="postgresql+psycopg")
    writer = _engine(driver, isolation_level="SERIALIZABLE", connections=1)
    readers = _engine(driver, isolation_level="REPEATABLE READ", connections=READERS, readonly=True)
    backend = Backend("postgresql", url, location, writer, readers, lambda: None, _passing, _exclude)
    try:
        with writer.connect() as connection:
            connection.execute(text("SELECT 1"))
    except DBAPIError as error:
        backend.dispose()
        raise store_error(error, location) from error
    return backend


def _engine(url: URL, *, isolation_level: Any, connections: int, readonly: bool = False) -> Engine:
    return create_engine(
        url,
        isolation_level=isolation_level,
        execution_options={"postgresql_readonly": readonly},
        connect_args=_CONNECT_ARGS,
        pool_size=connections,
        max_overflow=0,
        json_serializer=encode_json,
        json_deserializer=decode_json,
    )


def _passing(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    cause = error.orig
    if not isinstance(cause, psycopg.Error):
        return False
    # Without a state the server was not even reached.
    return cause.sqlstate in _PASSING_STATES or (cause.sqlstate is None and isinstance(cause, psycopg.OperationalError))


def lock_key(name: str) -> int:
    """The key of an advisory lock, 64 bits signed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _exclude(connection: Connection, name: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key(name)})


__all__ = ["lock_key", "open_postgres"]
