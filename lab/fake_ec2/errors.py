"""The one error that a call answers with.

ApiError    code and message as EC2 words them; `status` is the HTTP status that goes with the code
"""

from __future__ import annotations

from typing import Final

_STATUS: Final = {
    "AuthFailure": 401,
    "DryRunOperation": 412,
    "InternalError": 500,
    "InternalFailure": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
}


class ApiError(Exception):
    """:param code: EC2's error code, such as "InvalidSubnetID.NotFound"."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 400)


def missing(parameter: str) -> ApiError:
    return ApiError("MissingParameter", f"The request must contain the parameter {parameter}")


def invalid(value: object, parameter: str, why: str = "") -> ApiError:
    return ApiError("InvalidParameterValue", f"Value ({value}) for parameter {parameter} is invalid. {why}".rstrip())
