"""The one error that a call answers with.

ApiError    code and message as the cloud words them; `status` is the HTTP status that goes with the code
"""

from __future__ import annotations

from typing import Final

from lab.fake_cloud import errors as base
from lab.fake_cloud.space import Refusal

_STATUS: Final = {
    "EniPerInstanceLimitExceeded": 403,
    "IncorrectInstanceStatus": 403,
    "InternalError": 500,
    "InvalidOperation.Ipv4CountExceeded": 403,
    "InvalidVSwitchId.IpNotEnough": 403,
    "MaxEniCountExceeded": 403,
    "Operation.Conflict": 403,
    "SecurityGroupInstanceLimitExceed": 403,
    "ServiceUnavailable": 503,
}
_REFUSED: Final[dict[Refusal, tuple[str, str]]] = {
    "exhausted": ("InvalidVSwitchId.IpNotEnough", 'The specified VSwitch "{}" has not enough IpAddress.'),
    "no-prefix": ("InvalidVSwitchId.IpNotEnough", 'The specified VSwitch "{}" has not enough free IP prefixes.'),
    "outside": ("InvalidVSwitchId.IpInvalid", "The address {} is not in the CIDR block of the VSwitch."),
    "reserved": ("InvalidVSwitchId.IpInvalid", "The address {} is reserved by the system."),
    "in-use": ("InvalidIp.IpAssigned", "The address {} is already assigned."),
    "prefix-in-use": ("InvalidIp.IpAssigned", "The prefix {} has addresses that are assigned already."),
    "malformed": ("InvalidIp.Address", "The address {} is invalid."),
    "no-block": ("InvalidIp.Address", "The prefix {} is no block of the VSwitch."),
}


class ApiError(base.ApiError):
    """:param code: the cloud's error code, such as "InvalidVSwitchId.NotFound"."""

    @property
    def status(self) -> int:
        if self.code in _STATUS:
            return _STATUS[self.code]
        if self.code.endswith(".NotFound"):
            return 404
        return 403 if self.code.startswith("Forbidden") else 400


def missing(parameter: str) -> ApiError:
    return ApiError(f"MissingParameter.{parameter}", f"The parameter {parameter} is mandatory for this request.")


def invalid(parameter: str, value: object, why: str = "") -> ApiError:
    return ApiError("InvalidParameter", f"The parameter {parameter} is invalid: {value}. {why}".rstrip())


def refusal(why: Refusal, what: str) -> ApiError:
    """What an address space refuses, in the cloud's words."""
    code, message = _REFUSED[why]
    return ApiError(code, message.format(what))


def mismatch() -> ApiError:
    return ApiError(
        "IdempotentParameterMismatch",
        "The request uses the same client token as a previous, but non-identical request.",
    )
