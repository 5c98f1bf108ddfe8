"""Pages of a listing that may change between two of them: the token names the last key told, not a number."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import msgspec

from services.registry.errors import InvalidInput

DEFAULT_SIZE: Final = 200
MAX_SIZE: Final = 1000


class _Token(msgspec.Struct, array_like=True, frozen=True):
    scope: str
    key: tuple[str, ...]


def page(
    keys: Sequence[tuple[str, ...]], *, size: int, token: str, scope: str = ""
) -> tuple[Sequence[tuple[str, ...]], str]:
    """The page of `keys` (ascending) after `token`, and the token of the next one, empty if this is the last.

    :param scope: what is listed; a token of one scope is refused in another. Raises InvalidInput.
    """
    if size > MAX_SIZE:
        raise InvalidInput(
            f"page_size is {size}, and may be 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}",
            field="page_size",
            remedy=f"ask for at most {MAX_SIZE} and follow next_page_token",
        )
    start = bisect_right(keys, _last_key(token, scope)) if token else 0
    end = start + (size or DEFAULT_SIZE)
    following = _token(scope, keys[end - 1]) if end < len(keys) else ""
    return keys[start:end], following


def _token(scope: str, key: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Token(scope, key))).decode().rstrip("=")


def _last_key(token: str, scope: str) -> tuple[str, ...]:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        last = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Token)
    except (ValueError, binascii.Error) as error:
        raise _refused("page_token is none of this service's") from error
    if last.scope != scope:
        raise _refused("page_token belongs to another listing")
    return last.key


def _refused(message: str) -> InvalidInput:
    return InvalidInput(
        message, field="page_token", remedy="pass next_page_token unchanged with the same filter, or start without one"
    )


__all__ = ["DEFAULT_SIZE", "MAX_SIZE", "page"]
