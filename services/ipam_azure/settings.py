"""Settings of `ipam-azure`: one subscription and location, and the defaults of its nodes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.ipam.settings import IpamSettings, Tags

_NOT_CREATED = "must stay {}: interfaces of Azure come with the virtual machine"


def check_account(subscription: str) -> str:
    """In lower case. Raises ValueError for what is no subscription."""
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", subscription.lower()):
        raise ValueError("write the subscription's id, such as 00000000-1111-2222-3333-444444444444")
    return subscription.lower()


def check_region(location: str) -> str:
    """Raises ValueError for what is no location of Azure."""
    if not re.fullmatch(r"[a-z][a-z0-9]{2,39}", location):
        raise ValueError("write a location such as westeurope, in lower case and without blanks")
    return location


Account = Annotated[str, AfterValidator(check_account)]
Region = Annotated[str, AfterValidator(check_region)]


class Settings(IpamSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_IPAM_AZURE_", extra="forbid")

    account: Account = Field(description="Azure subscription's id")
    region: Region = Field(description="Azure location, such as westeurope")
    store: str = Field(
        "sqlite:////var/lib/plimsoll/ipam-azure.db", description="database: sqlite:////path or postgresql://..."
    )
    release_delay_s: float = Field(
        180.0, ge=0, le=86400, description="how long an excess lasts before it is released; Azure is slow to give again"
    )
    subnet_ids: tuple[str, ...] = Field((), description=_NOT_CREATED.format("empty"))
    subnet_tags: Tags = Field(default_factory=dict, description=_NOT_CREATED.format("empty"))
    security_group_ids: tuple[str, ...] = Field((), description=_NOT_CREATED.format("empty"))
    security_group_tags: Tags = Field(default_factory=dict, description=_NOT_CREATED.format("empty"))
    prefix_delegation: bool = Field(False, description="must stay false: interfaces of Azure take single addresses")
    ipv6: bool = Field(False, description="must stay false: pods get no IPv6 address on Azure yet")
    release_interfaces: bool = Field(False, description=_NOT_CREATED.format("false"))

    @field_validator(
        "subnet_ids", "subnet_tags", "security_group_ids", "security_group_tags", "prefix_delegation", "ipv6",
        "release_interfaces",
    )  # fmt: skip
    @classmethod
    def _not_on_azure(cls, value: object) -> object:
        if value:
            raise ValueError("there is no such thing on Azure; leave it out (docs/ipam-azure.md says what there is)")
        return value
