"""What SQLite and PostgreSQL each bring to a Database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import URL, Connection, Engine

READERS: Final = 4


@dataclass(frozen=True, slots=True)
class Backend:
    """Two engines and how they differ.

    :param name: "sqlite" or "postgresql".
    :param url: with its password, if it has one.
    :param location: the database's name for messages, without secrets.
    :param writer: one connection, serialisable transactions.
    :param readers: READERS connections; a transaction sees one state throughout.
    :param verify: raises StoreError when the database is not the one that was opened.
    :param passing: whether an error goes away when the same is tried again.
    :param exclude: makes others that call it with the same name wait until this transaction ends.
    """

    name: str
    url: URL
    location: str
    writer: Engine
    readers: Engine
    verify: Callable[[], None]
    passing: Callable[[BaseException], bool]
    exclude: Callable[[Connection, str], None]

    def dispose(self) -> None:
        self.readers.dispose()
        self.writer.dispose()


def encode_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def decode_json(text: str | bytes) -> Any:
    return msgspec.json.decode(text)


__all__ = ["READERS", "Backend", "decode_json", "encode_json"]
