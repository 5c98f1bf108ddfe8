"""ARM's errors: a code, a message, the HTTP status that goes with the code, and headers.

ApiError    {"error": {"code": ..., "message": ...}}
"""

from __future__ import annotations

from typing import Final

from lab.fake_cloud import errors as base
from lab.fake_cloud.space import Refusal

_STATUS: Final = {
    "AnotherOperationInProgress": 409,
    "AuthenticationFailed": 401,
    "AuthorizationFailed": 403,
    "CanceledAndSupersededDueToAnotherOperation": 409,
    "Conflict": 409,
    "ExpiredAuthenticationToken": 401,
    "InternalError": 500,
    "InternalServerError": 500,
    "LinkedAuthorizationFailed": 403,
    "MethodNotAllowed": 405,
    "NotFound": 404,
    "OperationNotAllowed": 409,
    "PreconditionFailed": 412,
    "ReferencedResourceNotProvisioned": 409,
    "ResourceCollectionRequestsThrottled": 429,
    "ResourceGroupNotFound": 404,
    "ResourceNotFound": 404,
    "ReadOnlyDisabledSubscription": 409,
    "RetryableError": 429,
    "ScopeLocked": 409,
    "ServerTimeout": 503,
    "ServiceUnavailable": 503,
    "SubscriptionNotFound": 404,
    "TooManyRequests": 429,
}
_REFUSED: Final[dict[Refusal, tuple[str, str]]] = {
    "exhausted": (
        "SubnetIsFull",
        "Subnet {} does not have enough capacity for the IP addresses that are asked for.",
    ),
    "outside": ("PrivateIPAddressNotInSubnet", "Private static IP address {} is not in the range of the subnet."),
    "reserved": ("PrivateIPAddressInReservedRange", "Private static IP address {} is in the subnet's reserved range."),
    "in-use": ("PrivateIPAddressIsAllocated", "IP address {} is already allocated."),
    "malformed": ("InvalidIPAddressFormat", "{} is not an IP address."),
    "no-prefix": ("NotSupported", "{}"),
    "prefix-in-use": ("NotSupported", "{}"),
    "no-block": ("NotSupported", "{}"),
}


class ApiError(base.ApiError):
    """:param code: ARM's error code, such as "ResourceNotFound".
    :param retry_after_s: told in Retry-After.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 400)


def refusal(why: Refusal, what: str) -> ApiError:
    """What an address space refuses, in Azure's words."""
    code, message = _REFUSED[why]
    return ApiError(code, message.format(what))


def missing(resource_id: str) -> ApiError:
    return ApiError("ResourceNotFound", f"The Resource '{resource_id}' was not found.")
