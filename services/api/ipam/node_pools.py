"""Which named pools a node has, as the metadata of its default pool's stream tell it.

It is said with the call and not in a message: a service that does not know of it goes on as before, and so does a node
that does not say it, whose pools are then never taken for ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

KEY: Final = "plimsoll-pools"


def to_metadata(names: Collection[str]) -> tuple[tuple[str, str], ...]:
    return ((KEY, ",".join(sorted(names))),)


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> frozenset[str] | None:
    """The names; None: the node does not say."""
    for key, value in metadata:
        if key == KEY:
            return frozenset(filter(None, str(value).split(",")))
    return None
