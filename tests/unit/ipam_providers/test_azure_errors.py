"""What ARM says, as an error of the domain: by code, by status, by what stands among the details."""

from __future__ import annotations

import json
from typing import Any

import pytest
from azure.core import exceptions as azure

from ipam.errors import (
    CloudError,
    Conflict,
    Denied,
    Gone,
    InProgress,
    Rejected,
    SubnetExhausted,
    Throttled,
    Unavailable,
)
from ipam.providers.azure_errors import of_operation, translate


class Response:
    """As much of an HTTP response as an SDK's error asks for."""

    reason, headers, content_type = "", {"Retry-After": "17"}, "application/json"

    def __init__(self, status: int, document: object) -> None:
        self.status_code = status
        self._text = json.dumps(document)

    def text(self, *_: object) -> str:
        return self._text

    body = text


def refusal(status: int, code: str, message: str = "no", details: list[dict[str, Any]] | None = None) -> CloudError:
    document = {"error": {"code": code, "message": message, "details": details or []}}
    return translate(azure.HttpResponseError(response=Response(status, document)), "Op")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "details", "kind", "told"),
    [
        (429, "OperationNotAllowed", ["TooManyRequests"], Throttled, "TooManyRequests"),  # Compute
        (429, "OperationNotAllowed", [], Throttled, "OperationNotAllowed"),
        (429, "SomethingNew", [], Throttled, "SomethingNew"),
        (429, "RetryableError", ["ReferencedResourceNotProvisioned"], InProgress, "RetryableError"),
        (409, "OperationNotAllowed", [], Rejected, "OperationNotAllowed"),  # a quota of cores, and much else
        (400, "BadRequest", ["SubnetIsFull"], SubnetExhausted, "SubnetIsFull"),
        (404, "SubscriptionNotFound", [], Denied, "SubscriptionNotFound"),
        (404, "ResourceGroupNotFound", [], Gone, "ResourceGroupNotFound"),
        (409, "ScopeLocked", [], Denied, "ScopeLocked"),
        (409, "ReadOnlyDisabledSubscription", [], Denied, "ReadOnlyDisabledSubscription"),
        (403, "LinkedAuthorizationFailed", [], Denied, "LinkedAuthorizationFailed"),
        (409, "Conflict", [], Conflict, "Conflict"),
    ],
)
def test_a_refusal_by_code_status_and_details(
    status: int, code: str, details: list[str], kind: type[CloudError], told: str
) -> None:
    error = refusal(status, code, details=[{"code": each, "message": "inside"} for each in details])
    assert (type(error), error.code) == (kind, told)
    assert error.retry_after_s == 17


@pytest.mark.parametrize(("state", "kind"), [("Updating", InProgress), ("Failed", Conflict)])
def test_what_never_settles_by_itself_is_not_waited_for_without_end(state: str, kind: type[CloudError]) -> None:
    error = refusal(
        400, "ReferencedResourceNotProvisioned", f"subnet s is not in Succeeded state. It is in {state} state."
    )
    assert type(error) is kind


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"code": "NetworkingInternalOperationError", "message": "?"}, Unavailable),
        ({"code": "InternalExecutionError", "message": "?"}, Unavailable),
        ({"code": "OperationPreempted", "message": "?"}, Conflict),
        ({"code": "ResourceOperationFailure", "details": [{"code": "SubnetIsFull"}, "garbage"]}, SubnetExhausted),
        ({}, Rejected),
    ],
)
def test_what_a_long_operation_ended_with(told: dict[str, Any], kind: type[CloudError]) -> None:
    error = of_operation(told, "Operations.Get", subnet_id="subnet-1")
    assert type(error) is kind
    if isinstance(error, SubnetExhausted):
        assert error.subnet_id == "subnet-1"


def test_a_token_that_is_refused_is_denied_whatever_its_issuer_s_status() -> None:
    answer = Response(400, {"error": "invalid_client", "error_description": "no such secret"})
    error = translate(azure.ClientAuthenticationError(response=answer), "Op")  # type: ignore[arg-type]
    assert type(error) is Denied
    error = translate(azure.ClientAuthenticationError(response=Response(503, {})), "Op")  # type: ignore[arg-type]
    assert type(error) is Unavailable
