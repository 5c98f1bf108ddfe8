"""What can be set of the registry."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from ipam.cluster_pool import PREFIX4, PREFIX6, ClusterRanges, parse_cluster
from services.registry.identities import DEFAULT_PATTERNS
from services.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_REGISTRY_")

    store: str = Field(
        "sqlite:////var/lib/plimsoll/registry.db",
        description="database: sqlite:////absolute/file.db or postgresql://user@host/name",
    )
    lost_after_s: float = Field(30.0, ge=0.1, le=86400, description="a node silent for so long is lost, in seconds")
    heartbeat_write_s: float = Field(
        60.0, ge=0.1, le=86400, description="how often heartbeats are written to the store, all in one, in seconds"
    )
    cluster_cidrs: list[str] = Field(
        [], description="ranges for pods of nodes that set pod_cidrs = cluster, of IPv4, IPv6 or both; empty: none"
    )
    node_prefix4: int = Field(PREFIX4, ge=16, le=30, description="bits of a node's IPv4 range out of cluster_cidrs")
    node_prefix6: int = Field(PREFIX6, ge=48, le=96, description="bits of a node's IPv6 range out of cluster_cidrs")
    identity_labels: list[str] = Field(
        list(DEFAULT_PATTERNS),
        description="which labels make an identity: patterns with * and ?, ! excludes, the last that matches decides",
    )
    identity_rest_s: float = Field(
        600.0, ge=1, le=86400, description="rest of an identity that no endpoint uses before it may get other labels"
    )

    @property
    def cluster(self) -> ClusterRanges | None:
        """What cluster_cidrs says; None: nothing."""
        return parse_cluster(self.cluster_cidrs, self.node_prefix4, self.node_prefix6) if self.cluster_cidrs else None

    @model_validator(mode="after")
    def _cluster(self) -> Self:
        _ = self.cluster
        return self

    @field_validator("identity_labels")
    @classmethod
    def _patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not pattern.removeprefix("!") or len(pattern) > 512:
                raise ValueError(f'expected patterns such as "app" or "!pod-*", got {pattern!r}')
        return value
