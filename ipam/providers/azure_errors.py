"""ARM's errors as the domain's, each with what to do about it.

429                     -> Throttled        cut, timeout, 5xx, garbage -> Unavailable
SubnetIsFull            -> SubnetExhausted  limits and quotas -> LimitReached
busy                    -> InProgress       ETag, in use -> Conflict
404                     -> Gone             401, 403, locks, credentials -> Denied
anything else that is our own fault -> Rejected
https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "InternalError": Unavailable,
    "InternalExecutionError": Unavailable,
    "InternalOperationError": Unavailable,
    "InternalServerError": Unavailable,
    "NetworkingInternalOperationError": Unavailable,
    "ServerTimeout": Unavailable,
    "TooManyRequests": Throttled,
    "ResourceCollectionRequestsThrottled": Throttled,
    "SubscriptionRequestsThrottled": Throttled,
    "AnotherOperationInProgress": InProgress,
    "RetryableError": InProgress,
    "ReferencedResourceNotProvisioned": InProgress,
    "CanceledAndSupersededDueToAnotherOperation": Conflict,
    "OperationPreempted": Conflict,
    "PreconditionFailed": Conflict,
    "PrivateIPAddressIsAllocated": Conflict,
    "PrivateIPAddressInUse": Conflict,
    "PublicIPAddressInUse": Conflict,
    "PublicIPAddressCannotBeAssociatedWithMultipleResources": Conflict,
    "PublicIPPrefixOutOfIpAddressesForVMScaleSet": Conflict,
    "InvalidResourceReference": Gone,
    # Not that its machines are gone: whoever asks may not see it.
    "SubscriptionNotFound": Denied,
    "AuthorizationFailed": Denied,
    "LinkedAuthorizationFailed": Denied,
    "ReadOnlyDisabledSubscription": Denied,
    "RequestDisallowedByPolicy": Denied,
    "ScopeLocked": Denied,
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
_STUCK: Final = "is in Failed state"  # what ReferencedResourceNotProvisioned says of what does not settle by itself


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


def of_operation(told: Mapping[str, Any], operation: str, *, subnet_id: str = "") -> CloudError:
    """What a long-running operation ended with.

    :param told: `error` of its status: code, message, details.
    """
    details = [each for each in told.get("details") or () if isinstance(each, Mapping)]
    code, message = _clearest(
        str(told.get("code") or "Failed"),
        str(told.get("message") or "the operation failed"),
        [(str(each.get("code") or ""), str(each.get("message") or "")) for each in details],
    )
    kind = _kind(code, 0, message)
    return build(kind, code, f"{operation}: {message} ({code})", operation, subnet_id=subnet_id)


def _of_answer(error: azure.HttpResponseError, operation: str, subnet_id: str) -> CloudError:
    response = error.response
    status = int(getattr(response, "status_code", 0) or 0)
    code, message = _told(error)
    if not code and status < 400:
        return malformed(operation, error.message)
    retry_after_s = seconds(getattr(response, "headers", {}).get("Retry-After"))
    kind = _kind(code, status, message)
    if kind is Rejected and isinstance(error, azure.ClientAuthenticationError):
        kind = Denied  # the token's issuer says 400 of credentials that are wrong
    return build(
        kind, code or f"Http{status}", f"{operation}: {message} ({code or status})", operation,
        subnet_id=subnet_id, retry_after_s=retry_after_s,
    )  # fmt: skip


def _told(error: azure.HttpResponseError) -> tuple[str, str]:
    told: Any = error.error
    if told is None:
        return "", str(error.message)
    details = getattr(told, "details", None) or ()
    return _clearest(
        str(told.code or ""),
        str(told.message or error.message),
        [(str(getattr(each, "code", "") or ""), str(getattr(each, "message", "") or "")) for each in details],
    )


def _clearest(code: str, message: str, details: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Code and message. A code that says little has one that says more among its details: Compute calls throttling
    OperationNotAllowed.
    https://learn.microsoft.com/troubleshoot/azure/virtual-machines/troubleshooting-throttling-errors
    """
    if _BY_CODE.get(code, Rejected) is Rejected:
        for inner, text in details:
            if inner in _BY_CODE:
                return inner, text or message
    return code, message


def _kind(code: str, status: int, message: str = "") -> type[CloudError]:
    known = _BY_CODE.get(code)
    if known is InProgress:
        return Conflict if _STUCK in message else known
    if status == 429:
        return Throttled
    if known is not None:
        return known
    if code.endswith(("LimitExceeded", "QuotaExceeded", "LimitReached")):
        return LimitReached
    if status == 404 or code.endswith("NotFound"):
        return Gone
    if status in (401, 403):
        return Denied
    if status in (409, 412):
        return Conflict
    return Unavailable if status >= 500 or status == 408 else Rejected


def seconds(text: str | None) -> float | None:
    """Of a Retry-After: RFC 9110, section 10.2.3; the form with a date is not used by ARM."""
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
