"""The provider of a worker's cloud. Its SDK is imported here, by the worker of that cloud only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ipam.ports import CloudProvider, OperationObserver
from services.worker.settings import Settings


def provider(settings: Settings, observe: OperationObserver) -> CloudProvider:
    return _PROVIDERS[settings.cloud](settings, observe)


def _alibaba(settings: Settings, observe: OperationObserver) -> CloudProvider:
    from ipam.providers.alibaba import AlibabaProvider, Scope

    return AlibabaProvider(
        settings.account,
        settings.region,
        endpoint_url=settings.endpoint_url or None,
        observe=observe,
        cluster=settings.cluster,
        exclude=settings.exclude_interface_tags,
        scope=Scope(**settings.scope.of_vpcs()),
        connections=settings.threads,
    )


def _aws(settings: Settings, observe: OperationObserver) -> CloudProvider:
    from ipam.providers.aws import AwsProvider
    from ipam.providers.aws_settings import Scope

    return AwsProvider(
        settings.account,
        settings.region,
        endpoint_url=settings.endpoint_url or None,
        observe=observe,
        cluster=settings.cluster,
        exclude=settings.exclude_interface_tags,
        scope=Scope(**settings.scope.of_vpcs()),
        connections=settings.threads,
    )


def _azure(settings: Settings, observe: OperationObserver) -> CloudProvider:
    from ipam.providers.azure import AzureProvider, Scope

    scope = settings.scope
    return AzureProvider(
        settings.account,
        settings.region,
        endpoint_url=settings.endpoint_url or None,
        observe=observe,
        cluster=settings.cluster,
        exclude=settings.exclude_interface_tags,
        scope=Scope(scope.resource_groups, scope.vpc_ids, scope.instance_tags, scope.security_group_tags),
        connections=settings.threads,
    )


_PROVIDERS: Final[Mapping[str, Callable[[Settings, OperationObserver], CloudProvider]]] = {
    "alibaba": _alibaba,
    "aws": _aws,
    "azure": _azure,
}
