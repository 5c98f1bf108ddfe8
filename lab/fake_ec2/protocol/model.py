"""Botocore's description of EC2, loaded once a process."""

from __future__ import annotations

import functools

import botocore.session
from botocore.model import OperationModel, ServiceModel


@functools.cache
def service_model() -> ServiceModel:
    return botocore.session.Session().get_service_model("ec2")


@functools.cache
def operation_model(action: str) -> OperationModel:
    """Raises botocore's OperationNotFoundError for a call that EC2 does not have."""
    return service_model().operation_model(action)


@functools.cache
def operation_names() -> frozenset[str]:
    return frozenset(service_model().operation_names)
