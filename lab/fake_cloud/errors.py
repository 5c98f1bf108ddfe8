"""The one error that a call of a fake cloud answers with; each cloud words it its own way.

ApiError    code and message as the cloud words them; `status` is the HTTP status that goes with the code
"""

from __future__ import annotations


class ApiError(Exception):
    """:param code: the cloud's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return 400
