"""What can be set of the registry."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

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
    identity_labels: list[str] = Field(
        list(DEFAULT_PATTERNS),
        description="which labels make an identity: patterns with * and ?, ! excludes, the last that matches decides",
    )
    identity_rest_s: float = Field(
        600.0, ge=1, le=86400, description="rest of an identity that no endpoint uses before it may get other labels"
    )

    @field_validator("identity_labels")
    @classmethod
    def _patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not pattern.removeprefix("!") or len(pattern) > 512:
                raise ValueError(f'expected patterns such as "app" or "!pod-*", got {pattern!r}')
        return value
