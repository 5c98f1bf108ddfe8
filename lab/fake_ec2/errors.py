"""The one error that a call answers with.

ApiError    code and message as EC2 words them; `status` is the HTTP status that goes with the code
"""

from __future__ import annotations

from typing import Final

from lab.fake_cloud import errors as base
from lab.fake_cloud.space import Refusal

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

_REFUSED: Final[dict[Refusal, tuple[str, str]]] = {
    "exhausted": (
        "InsufficientFreeAddressesInSubnet",
        "The specified subnet does not have enough free addresses to satisfy the request. ({})",
    ),
    "no-prefix": (
        "InsufficientCidrBlocks",
        "The specified subnet does not have enough free cidr blocks to satisfy the request. ({})",
    ),
    "outside": ("InvalidParameterValue", "Address {} does not fall within the subnet's address range"),
    "reserved": ("InvalidParameterValue", "Address {} is in subnet's reserved address range"),
    "in-use": ("InvalidIPAddress.InUse", "Address {} is in use."),
    "prefix-in-use": ("InvalidIPAddress.InUse", "Prefix {} holds addresses that are in use or reserved."),
    "malformed": ("InvalidParameterValue", "invalid value for parameter address: {}"),
    "no-block": ("InvalidParameterValue", "Prefix {} is not a block of the subnet"),
}


class ApiError(base.ApiError):
    """:param code: EC2's error code, such as "InvalidSubnetID.NotFound"."""

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 400)


def missing(parameter: str) -> ApiError:
    return ApiError("MissingParameter", f"The request must contain the parameter {parameter}")


def invalid(value: object, parameter: str, why: str = "") -> ApiError:
    return ApiError("InvalidParameterValue", f"Value ({value}) for parameter {parameter} is invalid. {why}".rstrip())


def refusal(why: Refusal, what: str) -> ApiError:
    """What an address space refuses, in EC2's words."""
    code, message = _REFUSED[why]
    return ApiError(code, message.format(what))


def mismatch() -> ApiError:
    return ApiError(
        "IdempotentParameterMismatch",
        "The request uses the same client token as a previous, but non-identical request.",
    )
