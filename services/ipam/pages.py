"""Pages of sorted listings. A token names the last item that was sent, so items may come and go between two pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ipam.errors import InvalidInput

T = TypeVar("T")

DEFAULT_SIZE: Final = 100
LARGEST_SIZE: Final = 1000


def page(items: Sequence[T], key: Callable[[T], str], size: int, token: str) -> tuple[Sequence[T], str]:
    """Part of `items`, which are sorted by `key`, and the token of the next page; "" at the end.

    Raises InvalidInput for a token that was not given out.
    """
    size = min(size or DEFAULT_SIZE, LARGEST_SIZE)
    if token:
        after = _decode(token)
        items = [each for each in items if key(each) > after]
    part = items[:size]
    return part, _encode(key(part[-1])) if len(items) > size else ""


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise InvalidInput(
            "the page token was not given out by this service", field="page_token", remedy="begin at the first page"
        ) from error
