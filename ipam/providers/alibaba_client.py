"""The SDK's clients of ECS and VPC behind one: calls by name, with parameters and answers as the API names them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from alibabacloud_credentials.client import Client as Credentials
from alibabacloud_ecs20140526 import models as ecs_models
from alibabacloud_ecs20140526.client import Client as EcsClient
from alibabacloud_tea_openapi.utils_models import Config
from alibabacloud_vpc20160428 import models as vpc_models
from alibabacloud_vpc20160428.client import Client as VpcClient
from darabonba.runtime import RuntimeOptions

from ipam.providers.alibaba_settings import endpoint

_OF_VPC: Final = frozenset({"DescribeVSwitches", "DescribeVpcs", "DescribeEipAddresses", "AssociateEipAddress"})


class Client:
    """Blocking, thread-safe. Credentials are found as all of the SDK's users find them: environment, OIDC, file, role.

    :param endpoint_url: another server than the cloud's own, for both APIs.
    :param connections: calls that may be under way at a time.
    """

    def __init__(
        self,
        region: str,
        cluster: str,
        endpoint_url: str | None,
        *,
        connections: int,
        connect_timeout_s: float,
        read_timeout_s: float,
    ) -> None:
        config = Config(
            credential=Credentials(),
            region_id=region,
            connect_timeout=int(connect_timeout_s * 1000),
            read_timeout=int(read_timeout_s * 1000),
            max_idle_conns=connections,
            user_agent=f"plimsoll/{cluster}",
        )
        if endpoint_url:
            config.protocol, config.endpoint = endpoint(endpoint_url)
        self._ecs = EcsClient(config)
        self._vpc = VpcClient(config)
        self._runtime = RuntimeOptions(autoretry=False)

    def call(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer's body. Parameters that are None are not sent. Raises what the SDK raises."""
        client, models = (self._vpc, vpc_models) if operation in _OF_VPC else (self._ecs, ecs_models)
        request = getattr(models, f"{operation}Request")().from_map(dict(asked))
        method = getattr(client, f"{_snake(operation)}_with_options")
        answer: Mapping[str, Any] = method(request, self._runtime).body.to_map()
        return answer


@functools.cache
def _snake(operation: str) -> str:
    """As the SDK names it: describe_vswitches."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower()
