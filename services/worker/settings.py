"""Settings of `worker`: whose intents it takes, where the cloud is, and how many calls the account allows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.ipam.settings import RedisUrl, Tags, check_redis_url
from services.ipam_alibaba import settings as alibaba
from services.ipam_aws import settings as aws
from services.ipam_azure import settings as azure
from services.runtime.settings import ServiceSettings
from services.worker.buckets import BudgetLimits, Rate

Cloud = Literal["alibaba", "aws", "azure"]
# How each cloud names accounts and regions.
PLACES: Final[Mapping[str, Mapping[str, Callable[[str], str]]]] = {
    "alibaba": {"account": alibaba.check_account, "region": alibaba.check_region},
    "aws": {"account": aws.check_account, "region": aws.check_region},
    "azure": {"account": azure.check_account, "region": azure.check_region},
}
# What ids of networks look like, and an example.
SCOPES: Final[Mapping[str, tuple[str, str]]] = {
    "alibaba": ("vpc-bp15zckdt37pq72zvwvv2", r"vpc-[0-9a-z]{8,32}"),
    "aws": ("vpc-0123456789abcdef0", r"vpc-[0-9a-z]+"),
    "azure": (
        "/subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Network/virtualNetworks/NAME",
        r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Network/virtualNetworks/[^/]+",
    ),
}
CallsPerS = Annotated[float, Field(gt=0, le=10_000)]
Burst = Annotated[float, Field(ge=1, le=10_000)]


class BudgetSettings(BaseModel):
    """The account's allowance in this region; every worker of it must be told the same."""

    model_config = ConfigDict(extra="forbid")

    mutate_per_s: CallsPerS = Field(default=10.0, description="ceiling of mutating calls a second")
    mutate_burst: Burst = Field(default=20.0, description="mutating calls at once after a pause")
    read_per_s: CallsPerS = Field(default=20.0, description="ceiling of reading calls a second")
    read_burst: Burst = Field(default=40.0, description="reading calls at once after a pause")
    total_per_s: CallsPerS = Field(
        default=25.0, description="ceiling of all calls a second; mutations draw from it first"
    )
    total_burst: Burst = Field(default=50.0, description="calls at once after a pause")
    cut_factor: float = Field(
        default=0.5, gt=0, lt=1, description="the rate is multiplied by it when the cloud throttles"
    )
    cut_interval_s: float = Field(default=2.0, ge=0, le=60, description="least time between two cuts")
    growth_share: float = Field(
        default=0.02, gt=0, le=10, description="part of the ceiling regained in a second of success"
    )
    fallback_share: float = Field(
        default=0.2, gt=0, le=1, description="part of it that this worker takes while Redis is away"
    )

    def limits(self) -> BudgetLimits:
        return BudgetLimits(
            mutate=Rate(self.mutate_per_s, self.mutate_burst),
            read=Rate(self.read_per_s, self.read_burst),
            total=Rate(self.total_per_s, self.total_burst),
            cut_factor=self.cut_factor,
            cut_interval_s=self.cut_interval_s,
            growth_share=self.growth_share,
        )


class ScopeSettings(BaseModel):
    """What of the account is looked at; empty: everything. For accounts that others use too."""

    model_config = ConfigDict(extra="forbid")

    vpc_ids: tuple[str, ...] = Field(default=(), description="networks by their ids, of Azure by their whole ids")
    resource_groups: tuple[str, ...] = Field(default=(), description="Azure only: groups of machines and interfaces")
    vpc_cidrs: tuple[str, ...] = Field(default=(), description="networks by their CIDR, such as 10.0.0.0/16")
    instance_tags: Tags = Field(default_factory=dict, description="instances with all of these tags; * and ? may stand")
    subnet_tags: Tags = Field(default_factory=dict, description="subnets with all of these tags")
    security_group_tags: Tags = Field(default_factory=dict, description="security groups with all of these tags")

    def of_vpcs(self) -> dict[str, Any]:
        """For clouds without resource groups."""
        return self.model_dump(exclude={"resource_groups"})

    @field_validator("vpc_cidrs")
    @classmethod
    def _cidrs(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                ipaddress.ip_network(value)
            except ValueError as error:
                raise ValueError(f"{value!r} is no network: {error}; write 10.0.0.0/16") from error
        return values


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_WORKER_", extra="forbid")

    cloud: Cloud = Field("aws", description="whose API to speak to")
    account: str = Field(description="whose resources, as the IPAM service has it: the account's number")
    region: str = Field(description="the cloud's region, as the IPAM service has it")
    cluster: str = Field(
        "plimsoll", pattern=r"^[A-Za-z0-9._-]{1,63}$", description="the cluster that the IPAM service manages"
    )
    ipam: str = Field(description="the IPAM service: host:port, or unix:/path on this machine")
    ipam_identity: str = Field("", description="who it must prove to be: service/<name>; empty: the cloud's service")
    redis: RedisUrl = "unix:///run/plimsoll/redis.sock"
    endpoint_url: str = Field("", description="another address of the cloud's API, for a lab; empty: the cloud's own")
    scope: ScopeSettings = Field(default_factory=ScopeSettings, description="what of the account is looked at")
    exclude_interface_tags: Tags = Field(default_factory=dict, description="interfaces with all of them are not seen")
    interface_tags: Tags = Field(default_factory=dict, description="more tags on interfaces that are created")
    threads: int = Field(16, ge=1, le=256, description="intents performed at the same time")
    budget: BudgetSettings = Field(default_factory=BudgetSettings, description="calls that the account allows")

    @field_validator("redis")
    @classmethod
    def _redis(cls, value: str) -> str:
        return check_redis_url(value)

    @field_validator("account", "region")
    @classmethod
    def _of_cloud(cls, value: str, info: ValidationInfo) -> str:
        checks = PLACES.get(info.data.get("cloud", ""), {})
        return checks[str(info.field_name)](value) if checks else value

    @model_validator(mode="after")
    def _scope_of_cloud(self) -> Self:
        example, pattern = SCOPES[self.cloud]
        for each in self.scope.vpc_ids:
            if not re.fullmatch(pattern, each, re.IGNORECASE):
                raise ValueError(f"scope.vpc_ids: {each!r} is no network of {self.cloud}; it looks like {example}")
        if self.cloud == "azure":
            unknown = [name for name in ("vpc_cidrs", "subnet_tags") if getattr(self.scope, name)]
        else:
            unknown = ["resource_groups"] if self.scope.resource_groups else []
        if unknown:
            raise ValueError(f"scope.{unknown[0]}: there is no such thing on {self.cloud}; leave it out")
        return self

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("write http://host:port or https://host:port")
        return value

    @property
    def identity(self) -> str:
        """Who the IPAM service must prove to be."""
        return self.ipam_identity or f"service/ipam-{self.cloud}"

    @model_validator(mode="after")
    def _reaches_ipam(self) -> Self:
        if not self.ipam.startswith("unix:") and self.tls is None and not self.insecure_loopback:
            raise ValueError("ipam: a service on the network needs tls.ca, tls.certificate and tls.key")
        return self
