"""EC2's errors as the domain's, each with what to do about it.

throttled       -> Throttled          cut, timeout, 5xx, garbage -> Unavailable
no address, /28 -> SubnetExhausted    a type's or the account's limit -> LimitReached
taken, busy     -> Conflict           not found -> Gone
credentials     -> Denied             anything else that is our own fault -> Rejected
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from botocore import exceptions as botocore

from ipam.errors import (
    CloudError,
    Conflict,
    Denied,
    Gone,
    LimitReached,
    Rejected,
    SubnetExhausted,
    Throttled,
    Unavailable,
)

_THROTTLED: Final = frozenset({
    "RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
    "RequestThrottledException", "TooManyRequestsException", "EC2ThrottledException", "BandwidthLimitExceeded",
    "SlowDown", "PriorRequestNotComplete",
})  # fmt: skip
_UNAVAILABLE: Final = frozenset({
    "InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "RequestTimeout",
    "RequestTimeoutException",
})  # fmt: skip
_EXHAUSTED: Final = frozenset({"InsufficientFreeAddressesInSubnet", "InsufficientCidrBlocks"})
_CONFLICT: Final = frozenset({
    "InvalidNetworkInterface.InUse", "InvalidIPAddress.InUse", "IncorrectState", "IncorrectInstanceState",
    "DependencyViolation", "IdempotentParameterMismatch", "ConcurrentTagAccess", "ResourceAlreadyAssigned",
    "Resource.AlreadyAssociated",
})  # fmt: skip
_DENIED: Final = frozenset({
    "UnauthorizedOperation", "AuthFailure", "AccessDenied", "AccessDeniedException", "InvalidClientTokenId",
    "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException",
    "MissingAuthenticationToken", "IncompleteSignature", "RequestExpired", "OptInRequired", "PendingVerification",
    "Blocked", "NotAuthorized",
})  # fmt: skip
# EC2 says these with a code that it uses for much else.
_CONFLICT_WORDS: Final = ("already has an interface attached at device index", "is currently in use")

_REMEDIES: Final[Mapping[type[CloudError], str]] = {
    Throttled: "lower the call rate of the account, or have AWS raise its limit",
    Unavailable: "look at what the call has done before repeating it; check the endpoint and the network to it",
    SubnetExhausted: "name another subnet of the zone, or free addresses of this one",
    LimitReached: "use a larger instance type, or have AWS raise the limit of the account",
    Conflict: "read the resource again and decide anew",
    Gone: "read the instance and its interfaces again; check the ids in the settings",
    Denied: "check the credentials and that the policy allows the call",
    Rejected: "correct the settings that the message names",
}
_REMEDIES_BY_CODE: Final[Mapping[str, str]] = {
    "InsufficientCidrBlocks": "use a subnet with a free, aligned /28; a CIDR reservation keeps them whole",
    "RequestExpired": "set the machine's clock right",
    "SignatureDoesNotMatch": "check the secret key, and the machine's clock",
    "InvalidInstanceType": "check the instance type's name, or give its limits in the override",
    "InvalidGroup.NotFound": "check the ids of the security groups in the settings",
    "InvalidSubnetID.NotFound": "check the ids of the subnets in the settings",
}
_RETRY_AFTER_S: Final[Mapping[type[CloudError], float]] = {Throttled: 1.0, Unavailable: 1.0, Conflict: 1.0}


def translate(error: BaseException, operation: str, *, subnet_id: str = "") -> CloudError:
    """The domain's error for one of botocore's.

    :param operation: the call's name at the cloud.
    :param subnet_id: the subnet that the call took addresses of, if it is known.
    """
    if isinstance(error, botocore.ClientError):
        return _of_answer(error.response, operation, subnet_id)
    if not isinstance(error, (botocore.BotoCoreError, OSError)):
        return malformed(operation, error)
    kind = _kind_of_exception(error)
    return _build(kind, type(error).__name__, f"{operation}: {error}", operation, subnet_id)


def malformed(operation: str, why: object) -> Unavailable:
    """The cloud's answer lacks what it must have."""
    message = f"{operation}: the answer is malformed: {type(why).__name__}: {why}"
    error = _build(Unavailable, "MalformedAnswer", message, operation, "")
    assert isinstance(error, Unavailable)
    return error


def _of_answer(response: Mapping[str, Any], operation: str, subnet_id: str) -> CloudError:
    told = response.get("Error") or {}
    code = str(told.get("Code") or "Unknown")
    message = str(told.get("Message") or "no message")
    status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode", 0)
    return _build(_kind_of_code(code, message, status), code, f"{operation}: {message} ({code})", operation, subnet_id)


def _kind_of_code(code: str, message: str, status: int) -> type[CloudError]:
    for codes, kind in _BY_CODE:
        if code in codes:
            return kind
    if any(words in message for words in _CONFLICT_WORDS):
        return Conflict
    if code.endswith((".NotFound", ".Unknown")):
        return Gone
    if code.endswith("LimitExceeded"):
        return LimitReached
    if status == 429:
        return Throttled
    if status in (401, 403):
        return Denied
    if status >= 500:
        return Unavailable
    # 4xx, and a code that nobody knows: what cannot be told from our own fault must not be repeated for ever.
    return Rejected if status >= 400 or not code.isdecimal() else Unavailable


_BY_CODE: Final[tuple[tuple[frozenset[str], type[CloudError]], ...]] = (
    (_THROTTLED, Throttled),
    (_UNAVAILABLE, Unavailable),
    (_EXHAUSTED, SubnetExhausted),
    (_CONFLICT, Conflict),
    (_DENIED, Denied),
)


def _kind_of_exception(error: BaseException) -> type[CloudError]:
    credentials = (
        botocore.NoCredentialsError,
        botocore.PartialCredentialsError,
        botocore.CredentialRetrievalError,
        botocore.NoAuthTokenError,
        botocore.SSOError,
        botocore.UnauthorizedSSOTokenError,
        botocore.TokenRetrievalError,
        botocore.ProfileNotFound,
    )
    if isinstance(error, credentials):
        return Denied
    rejected = (
        botocore.ParamValidationError,
        botocore.InvalidEndpointDiscoveryConfigurationError,
        botocore.InvalidRegionError,
        botocore.NoRegionError,
        botocore.ValidationError,
        botocore.EndpointProviderError,
    )
    if isinstance(error, rejected):
        return Rejected
    # Cut connections, timeouts, DNS, TLS, garbage: the call may have taken effect.
    return Unavailable


def _build(kind: type[CloudError], code: str, message: str, operation: str, subnet_id: str) -> CloudError:
    remedy = _REMEDIES_BY_CODE.get(code, _REMEDIES[kind])
    error = kind(message, code=code, operation=operation, remedy=remedy, retry_after_s=_RETRY_AFTER_S.get(kind))
    if isinstance(error, SubnetExhausted):
        error.subnet_id = subnet_id
        error.prefixes = code == "InsufficientCidrBlocks"
    return error
