"""ARM's errors as the domain's, each with what to do about it.

429                     -> Throttled        cut, timeout, 5xx, garbage -> Unavailable
SubnetIsFull            -> SubnetExhausted  limits and quotas -> LimitReached
busy                    -> InProgress       ETag, in use -> Conflict
404                     -> Gone             401, 403, credentials -> Denied
anything else that is our own fault -> Rejected
https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from azure.core import exceptions as azure

from ipam.errors import (
    CloudError,
    Conflict,
    Denied,
    Gone,
    InProgress,
    LimitReached,
    Rejected,
    SubnetExhausted,
    Throttled,
    Unavailable,
)

_BY_CODE: Final[Mapping[str, type[CloudError]]] = {
    "SubnetIsFull": SubnetExhausted,
    "TooManyRequests": Throttled,
    "ResourceCollectionRequestsThrottled": Throttled,
    "SubscriptionRequestsThrottled": Throttled,
    "AnotherOperationInProgress": InProgress,
    "RetryableError": InProgress,
    "ReferencedResourceNotProvisioned": InProgress,
    "CanceledAndSupersededDueToAnotherOperation": Conflict,
    "PreconditionFailed": Conflict,
    "PrivateIPAddressIsAllocated": Conflict,
    "PrivateIPAddressInUse": Conflict,
    "PublicIPAddressInUse": Conflict,
    "PublicIPAddressCannotBeAssociatedWithMultipleResources": Conflict,
    "PublicIPPrefixOutOfIpAddressesForVMScaleSet": Conflict,
    "InvalidResourceReference": Gone,
    "OperationNotAllowed": Rejected,
    "QuotaExceeded": LimitReached,
}
_REMEDIES: Final[Mapping[type[CloudError], str]] = {
    Throttled: "lower the call rate of the subscription, or spread it over more of them",
    Unavailable: "look at what the call has done before repeating it; check the endpoint and the network to it",
    SubnetExhausted: "enlarge the subnet, or free addresses of it",
    LimitReached: "use more virtual machines: an interface and a machine take 256 IP configurations each",
    Conflict: "read the resource again and decide anew",
    InProgress: "nothing: it is tried again when the operation has ended",
    Gone: "read the instance and its interfaces again; check the ids in the settings",
    Denied: "check the credentials and that a role allows the call (docs/ipam-azure.md lists the permissions)",
    Rejected: "correct the settings that the message names",
}
_RETRY_AFTER_S: Final[Mapping[type[CloudError], float]] = {
    Throttled: 5.0, Unavailable: 1.0, Conflict: 1.0, InProgress: 2.0,
}  # fmt: skip
_LONGEST_RETRY_AFTER_S: Final = 600.0


def translate(error: BaseException, operation: str, *, subnet_id: str = "") -> CloudError:
    """The domain's error for one of the SDK's.

    :param operation: the call's name.
    :param subnet_id: the subnet that the call took addresses of, if it is known.
    """
    if isinstance(error, azure.HttpResponseError) and error.response is not None:
        return _of_answer(error, operation, subnet_id)
    kind: type[CloudError] = Unavailable
    if isinstance(error, azure.ClientAuthenticationError):
        kind = Denied
    elif isinstance(error, (azure.SerializationError, TypeError, KeyError)):
        return malformed(operation, error)
    return build(kind, type(error).__name__, f"{operation}: {error}", operation, subnet_id=subnet_id)


def malformed(operation: str, why: object) -> Unavailable:
    """The cloud's answer lacks what it must have."""
    error = build(Unavailable, "MalformedAnswer", f"{operation}: the answer is malformed: {why!r}", operation)
    assert isinstance(error, Unavailable)
    return error


def of_code(code: str, message: str, operation: str, *, subnet_id: str = "") -> CloudError:
    """What a long-running operation ended with."""
    return build(_kind(code, 0), code, f"{operation}: {message} ({code})", operation, subnet_id=subnet_id)


def _of_answer(error: azure.HttpResponseError, operation: str, subnet_id: str) -> CloudError:
    response = error.response
    status = int(getattr(response, "status_code", 0) or 0)
    code, message = _told(error)
    if not code and status < 400:
        return malformed(operation, error.message)
    retry_after_s = _seconds(getattr(response, "headers", {}).get("Retry-After"))
    return build(
        _kind(code, status), code or f"Http{status}", f"{operation}: {message} ({code or status})", operation,
        subnet_id=subnet_id, retry_after_s=retry_after_s,
    )  # fmt: skip


def _told(error: azure.HttpResponseError) -> tuple[str, str]:
    """Code and message. A code that says nothing has one that does among its details."""
    told: Any = error.error
    if told is None:
        return "", str(error.message)
    code, message = str(told.code or ""), str(told.message or error.message)
    for detail in getattr(told, "details", None) or ():
        inner = str(getattr(detail, "code", "") or "")
        if inner in _BY_CODE and code not in _BY_CODE:
            return inner, str(getattr(detail, "message", "") or message)
    return code, message


def _kind(code: str, status: int) -> type[CloudError]:
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code.endswith(("LimitExceeded", "QuotaExceeded", "LimitReached")):
        return LimitReached
    if status == 404 or code.endswith("NotFound"):
        return Gone
    if status in (401, 403):
        return Denied
    if status == 429:
        return Throttled
    if status in (409, 412):
        return Conflict
    if status >= 500 or status == 408 or code in ("InternalServerError", "InternalError", "ServerTimeout"):
        return Unavailable
    return Rejected


def _seconds(text: str | None) -> float | None:
    """RFC 9110, section 10.2.3; the form with a date is not used by ARM."""
    if text is None or not text.strip().isdecimal():
        return None
    return min(max(float(text), 0.1), _LONGEST_RETRY_AFTER_S)


def build(
    kind: type[CloudError],
    code: str,
    message: str,
    operation: str,
    *,
    subnet_id: str = "",
    retry_after_s: float | None = None,
) -> CloudError:
    if retry_after_s is None:
        retry_after_s = _RETRY_AFTER_S.get(kind)
    error = kind(message, code=code, operation=operation, remedy=_REMEDIES[kind], retry_after_s=retry_after_s)
    if isinstance(error, SubnetExhausted):
        error.subnet_id = subnet_id
    return error
