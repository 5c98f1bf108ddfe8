"""Settings of a service: a TOML file, then the environment, then flags; what comes later wins.

Each service subclasses `ServiceSettings`, sets its `env_prefix`, and adds fields. A field's `description` is its help;
`json_schema_extra={"remedy": "..."}` replaces the standard advice in an error.

    class Settings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="PLIMSOLL_REGISTRY_")
        store: str = Field("sqlite:////var/lib/plimsoll/registry.db", description="URL of the database")
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from services.runtime.addresses import SOCKET_PATH_BYTES, is_loopback, parse_listen
from services.runtime.settings_load import HelpShown, SettingsError, load

__all__ = ["HelpShown", "ServiceSettings", "SettingsError", "TlsSettings", "load"]


class TlsSettings(BaseModel):
    """PEM files of this process; read again when they change."""

    model_config = ConfigDict(extra="forbid")

    ca: Path = Field(description="certificate of the authority that all peers share")
    certificate: Path = Field(description="this process's certificate")
    key: Path = Field(description="its private key, mode 0600")


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix="PLIMSOLL_", env_nested_delimiter="__", extra="forbid", validate_default=False
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["json", "console", "auto"] = Field("auto", description="auto: console on a terminal, else JSON")
    listen: str = Field("", description="host:port of gRPC with mutual TLS; empty: none; port 0: any free one")
    insecure_loopback: bool = Field(False, description="allow `listen` without TLS on a loopback address; for tests")
    socket: Path | None = Field(None, description="Unix socket of gRPC for this machine's administrators, mode 0660")
    tls: TlsSettings | None = Field(None, description="TLS files; needed by `listen` and to reach other services")
    trust_domain: str = Field(
        "plimsoll.local", description="domain in the names of certificates, spiffe://<domain>/..."
    )
    metrics_listen: str = Field("", description="host:port or unix:/path of /metrics and /healthz; empty: none")
    otlp_endpoint: str = Field("", description="host:port of an OTLP collector for traces; empty: none")
    stop_grace_s: float = Field(10.0, gt=0, le=300, description="time for a clean stop, in seconds")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: `load` merges the sources, and a test's settings must not depend on its environment."""
        return (init_settings,)

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        if value:
            parse_listen(value)
        return value

    @field_validator("socket")
    @classmethod
    def _socket(cls, value: Path | None) -> Path | None:
        if value is not None and len(str(value).encode()) > SOCKET_PATH_BYTES:
            raise ValueError(f"a Unix socket's path may have {SOCKET_PATH_BYTES} bytes at most")
        return value

    @model_validator(mode="after")
    def _transport(self) -> ServiceSettings:
        if not self.listen or self.tls is not None:
            return self
        if not self.insecure_loopback:
            raise ValueError("listen: needs tls.ca, tls.certificate and tls.key (plimsoll pki issue makes them)")
        if not is_loopback(self.listen):
            raise ValueError("listen: without TLS only a loopback address such as 127.0.0.1:0 is accepted")
        return self
