"""Client tokens: a call repeated with its token is answered as the first time, and has no further effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lab.fake_cloud.errors import ApiError


class Tokens:
    """:param mismatch: makes the error of a token that is repeated with other parameters."""

    def __init__(self, mismatch: Callable[[], ApiError]) -> None:
        self._mismatch = mismatch
        self._done: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}

    def made(self, action: str, parameters: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Ids that the first call with this token made, None if this is the first.

        Raises ApiError if the first call had other parameters.
        """
        found = self._done.get((action, parameters.get("ClientToken", "")))
        if found is None:
            return None
        digest, ids = found
        if digest != _digest(parameters):
            raise self._mismatch()
        return ids

    def remember(self, action: str, parameters: Mapping[str, Any], ids: tuple[str, ...]) -> None:
        if token := parameters.get("ClientToken"):
            self._done[action, token] = (_digest(parameters), ids)


def _digest(parameters: Mapping[str, Any]) -> str:
    return repr(sorted((key, value) for key, value in parameters.items() if key != "ClientToken"))
