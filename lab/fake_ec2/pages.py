"""Pagination: a page of records, and a token that continues after its last one.

The token names the call, its parameters and the last record's number, and is signed: a token that is made up, or that
belongs to another listing, is refused. Records created or deleted meanwhile neither repeat nor skip others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Protocol, TypeVar

from lab.fake_ec2.errors import ApiError

_KEY = secrets.token_bytes(16)


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


R = TypeVar("R", bound=_Numbered)


def page(
    records: Iterable[R],
    action: str,
    parameters: Mapping[str, Any],
    *,
    ids: str = "",
    smallest: int = 5,
    largest: int = 1000,
) -> tuple[list[R], str | None]:
    """Records of this page and the next page's token.

    :param ids: name of the parameter that lists ids, which pagination does not go with.
    """
    size = parameters.get("MaxResults")
    token = parameters.get("NextToken")
    if size is not None:
        if ids and parameters.get(ids):
            raise ApiError(
                "InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults"
            )
        if not smallest <= size <= largest:
            raise ApiError(
                "InvalidParameterValue",
                f"Value ( {size} ) for parameter maxResults is invalid. "
                f"Expecting a value between {smallest} and {largest}.",
            )
    after = _read(token, _digest(action, parameters)) if token else -1
    left = iter(record for record in records if record.number > after)
    if size is None:
        return list(left), None
    found = list(islice(left, size + 1))
    if len(found) <= size:
        return found, None
    return found[:size], _write(found[size - 1].number, _digest(action, parameters))


def _digest(action: str, parameters: Mapping[str, Any]) -> str:
    asked = sorted((key, value) for key, value in parameters.items() if key not in ("NextToken", "MaxResults"))
    return hashlib.sha256(repr((action, asked)).encode()).hexdigest()[:16]


def _sign(text: bytes) -> bytes:
    return hmac.digest(_KEY, text, "sha256")[:16]


def _write(number: int, digest: str) -> str:
    text = json.dumps([number, digest]).encode()
    return base64.urlsafe_b64encode(_sign(text) + text).decode()


def _read(token: str, digest: str) -> int:
    refused = ApiError("InvalidNextToken", "The specified NextToken is not valid.")
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii"))
    except (binascii.Error, ValueError):
        raise refused from None
    signature, text = raw[:16], raw[16:]
    if not hmac.compare_digest(signature, _sign(text)):
        raise refused
    number, written = json.loads(text)
    if written != digest:
        raise refused
    return int(number)
