"""What can be set of the registry."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

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
