"""The errors of ECS and VPC as the domain's, each with what to do about it.

throttled        -> Throttled          cut, timeout, 5xx, garbage -> Unavailable
no address, /28  -> SubnetExhausted    a type's or the account's limit -> LimitReached
taken, busy      -> Conflict           the same call is under way -> InProgress
not found        -> Gone
credentials, RAM -> Denied             anything else that is our own fault -> Rejected

The HTTP status tells little: ECS says 403 of full vSwitches and of full instances, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from alibabacloud_credentials.exceptions import CredentialException
from Tea.exceptions import TeaException, ValidateException

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

_EXACT: Final[Mapping[type[CloudError], frozenset[str]]] = {
    Unavailable: frozenset({
        "InternalError", "ServiceUnavailable", "UnknownError", "ServiceUnavailableTemporary", "RequestTimeout",
        "InternalError.Unreachable", "SignatureNonceUsed",
    }),
    # The second is said now and then of a vSwitch that is full.
    SubnetExhausted: frozenset({"InvalidVSwitchId.IpNotEnough", "QuotaExceeded.PrivateIpAddress"}),
    LimitReached: frozenset({"EniPerInstanceLimitExceeded", "MaxEniCountExceeded", "SecurityGroupInstanceLimitExceed"}),
    Conflict: frozenset({
        "InvalidOperation.InvalidEniState", "InvalidOperation.InvalidEcsState", "InvalidOperation.Conflict",
        "Operation.Conflict", "OperationConflict", "TaskConflict", "IncorrectInstanceStatus", "IncorrectEipStatus",
        "InvalidBindingStatus", "InvalidAssociation.Duplicated", "IncorrectVSwitchStatus",
        "IdempotentParameterMismatch", "IdempotentFailed", "InvalidIp.IpAssigned",
        "InvalidPrivateIpAddress.Duplicated", "DependencyViolation",
    }),
    # The call with this token is being carried out: repeated later it is answered.
    InProgress: frozenset({"IdempotentProcessing", "LastTokenProcessing"}),
    Denied: frozenset({
        "SignatureDoesNotMatch", "IncompleteSignature", "InvalidCredentials", "NoPermission", "Unauthorized",
        "InvalidTimeStamp.Expired", "Abs.InvalidAccount.NotFound", "InvalidUserType.NotSupported", "InvalidStatus.RAM",
    }),
}  # fmt: skip
# Families of codes, in the order in which they are asked.
_FAMILIES: Final[tuple[tuple[re.Pattern[str], type[CloudError]], ...]] = (
    (re.compile(r"(ServiceUnavailable\.)?Throttling(\..+)?"), Throttled),
    (
        re.compile(r"(Forbidden|NoPermission|InvalidAccessKeyId|InvalidSecurityToken|MissingSecurityToken)(\..+)?"),
        Denied,
    ),
    (re.compile(r".+NotEnough"), SubnetExhausted),
    (re.compile(r"Quota_?Exceed.*|.+(Count|Limit)Exceed.*|.+ExceedLimit.*"), LimitReached),
    (re.compile(r".+\.NotFound|.+NotExist.*"), Gone),
)

# What else may be said of a vSwitch that has no block to give: prefixes come out of its reserved blocks only.
_OF_PREFIXES: Final = re.compile(r"(?i).*(prefix|cidrreservation).*")

_REMEDIES: Final[Mapping[type[CloudError], str]] = {
    Throttled: "lower the call rate of the account, or have Alibaba Cloud raise its limit",
    Unavailable: "look at what the call has done before repeating it; check the endpoint and the network to it",
    SubnetExhausted: "name another vSwitch of the zone, or free addresses of this one",
    LimitReached: "use a larger instance type, or have Alibaba Cloud raise the quota of the account",
    Conflict: "read the resource again and decide anew",
    InProgress: "nothing: it is looked at again",
    Gone: "read the instance and its interfaces again; check the ids in the settings",
    Denied: "check the credentials and that the RAM policy allows the call",
    Rejected: "correct the settings that the message names",
}
_REMEDIES_BY_CODE: Final[Mapping[str, str]] = {
    "InvalidTimeStamp.Expired": "set the machine's clock right",
    "SignatureDoesNotMatch": "check the access key's secret, and the machine's clock",
    "InvalidInstanceType.NotFound": "check the instance type's name, or give its limits in the override",
    "InvalidSecurityGroupId.NotFound": "check the ids of the security groups in the settings",
    "InvalidVSwitchId.NotFound": "check the ids of the vSwitches in the settings",
    "SecurityGroupInstanceLimitExceed": "use another security group: this one holds all the addresses it can",
}
_NO_BLOCK: Final = (
    "reserve blocks for prefixes in the vSwitch (CreateVSwitchCidrReservation), or name one that has some"
)
_LONGEST_WAIT_S: Final = 60.0
_RETRY_AFTER_S: Final[Mapping[type[CloudError], float]] = {
    Throttled: 1.0, Unavailable: 1.0, Conflict: 1.0, InProgress: 2.0,
}  # fmt: skip


def translate(error: BaseException, operation: str, *, subnet_id: str = "", prefixes: bool = False) -> CloudError:
    """The domain's error for one of the SDK's.

    :param operation: the call's name at the cloud.
    :param subnet_id: the vSwitch that the call took addresses of, if it is known.
    :param prefixes: it took whole prefixes.
    """
    error = getattr(error, "inner_exception", None) or error
    code, status = getattr(error, "code", None), getattr(error, "status_code", None)
    if isinstance(error, TeaException) and code and code != "None":
        text = f"{operation}: {_message(error)} ({code})"
        kind = _kind(code, status or 0)
        if prefixes and kind in (Rejected, Gone) and _OF_PREFIXES.fullmatch(code):
            kind = SubnetExhausted
        found = _build(kind, code, text, operation, subnet_id, prefixes)
        if found.retry_after_s is not None and (wait_ms := getattr(error, "retry_after", None)):
            found.retry_after_s = min(wait_ms / 1000, _LONGEST_WAIT_S)
        return found
    name = type(error).__name__
    text = f"{operation}: {getattr(error, 'message', None) or error}"
    if isinstance(error, CredentialException):
        return _build(Denied, name, text, operation)
    if isinstance(error, ValidateException):
        return _build(Rejected, name, text, operation)
    if isinstance(status, int) and status:
        return _build(_kind("", status), f"Http{status}", text, operation)
    # Cut connections, timeouts, DNS, TLS, garbage: the call may have taken effect.
    return _build(Unavailable, name, text, operation)


def malformed(operation: str, why: object) -> CloudError:
    """The cloud's answer lacks what it must have."""
    message = f"{operation}: the answer is malformed: {type(why).__name__}: {why}"
    return _build(Unavailable, "MalformedAnswer", message, operation)


def _message(error: TeaException) -> str:
    told = getattr(error, "data", None)
    message = told.get("Message") if isinstance(told, dict) else None
    return str(message or getattr(error, "message", None) or "no message")


def _kind(code: str, status: int) -> type[CloudError]:
    for kind, codes in _EXACT.items():
        if code in codes:
            return kind
    for family, kind in _FAMILIES:
        if family.fullmatch(code):
            return kind
    if status == 429:
        return Throttled
    if status == 401:
        return Denied
    # What cannot be told from our own fault must not be repeated for ever.
    return Unavailable if status >= 500 else Rejected


def _build(
    kind: type[CloudError], code: str, message: str, operation: str, subnet_id: str = "", prefixes: bool = False
) -> CloudError:
    remedy = _REMEDIES_BY_CODE.get(code, _REMEDIES[kind])
    error = kind(message, code=code, operation=operation, remedy=remedy, retry_after_s=_RETRY_AFTER_S.get(kind))
    if isinstance(error, SubnetExhausted):
        error.subnet_id = subnet_id
        error.prefixes = prefixes
        error.remedy = _NO_BLOCK if prefixes else remedy
    return error
