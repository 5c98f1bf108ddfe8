"""Pagination: a page of records, and a token that continues after its last one.

The token names the listing and the last record's number, and is signed: a token that is made up, or that belongs to
another listing, is refused. Records created or deleted meanwhile neither repeat nor skip others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from itertools import islice
from typing import Protocol, TypeVar

_KEY = secrets.token_bytes(16)


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


R = TypeVar("R", bound=_Numbered)


class BadToken(ValueError):
    """Made up, or of another listing."""


def page(records: Iterable[R], listing: object, size: int | None, token: str) -> tuple[list[R], str | None]:
    """Records of this page and the next page's token. Raises BadToken.

    :param listing: tells one listing from another: the call with its parameters.
    :param size: None: all that is left.
    """
    digest = hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
    after = _read(token, digest) if token else -1
    left = (record for record in records if record.number > after)
    if size is None:
        return list(left), None
    found = list(islice(left, size + 1))
    if len(found) <= size:
        return found, None
    return found[:size], _write(found[size - 1].number, digest)


def _sign(text: bytes) -> bytes:
    return hmac.digest(_KEY, text, "sha256")[:16]


def _write(number: int, digest: str) -> str:
    text = json.dumps([number, digest]).encode()
    return base64.urlsafe_b64encode(_sign(text) + text).decode()


def _read(token: str, digest: str) -> int:
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii"))
    except (binascii.Error, ValueError):
        raise BadToken from None
    signature, text = raw[:16], raw[16:]
    if not hmac.compare_digest(signature, _sign(text)):
        raise BadToken
    number, written = json.loads(text)
    if written != digest:
        raise BadToken
    return int(number)
