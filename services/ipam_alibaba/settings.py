"""Settings of `ipam-alibaba`: one account and region of Alibaba Cloud, and the defaults of its nodes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.ipam.settings import IpamSettings, ids_like


def check_account(number: str) -> str:
    """Raises ValueError for what is no account of Alibaba Cloud."""
    if not re.fullmatch(r"\d{16}", number):
        raise ValueError("write the account's number, 16 digits")
    return number


def check_region(region: str) -> str:
    """Raises ValueError for what is no region of Alibaba Cloud."""
    if not re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+)+", region):
        raise ValueError("write a region such as eu-central-1 or cn-hangzhou")
    return region


def _ids(prefix: str) -> object:
    return ids_like(rf"{prefix}-[0-9a-z]{{8,32}}", f"{prefix}-bp15zckdt37pq72zvwvv2")


VSwitchIds = Annotated[tuple[str, ...], _ids("vsw")]
SecurityGroupIds = Annotated[tuple[str, ...], _ids("sg")]
Account = Annotated[str, AfterValidator(check_account)]
Region = Annotated[str, AfterValidator(check_region)]


class Settings(IpamSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_IPAM_ALIBABA_", extra="forbid")

    account: Account = Field(description="Alibaba Cloud account number, 16 digits")
    region: Region = Field(description="Alibaba Cloud region, such as eu-central-1")
    store: str = Field(
        "sqlite:////var/lib/plimsoll/ipam-alibaba.db", description="database: sqlite:////path or postgresql://..."
    )
    first_interface_index: int = Field(
        1, ge=0, le=15, description="interfaces of a lower index carry no pods; 1: the primary one is the host's own"
    )
    subnet_ids: VSwitchIds = Field((), description="vSwitches of new interfaces; empty: by tags, else the node's own")
    security_group_ids: SecurityGroupIds = Field(
        (), description="groups of new interfaces; empty: by tags, else the primary interface's"
    )
    ipv6: bool = Field(False, description="must stay false: pods get no IPv6 address on Alibaba Cloud yet")

    @field_validator("ipv6")
    @classmethod
    def _no_ipv6(cls, value: bool) -> bool:
        if value:
            raise ValueError("IPv6 of Alibaba Cloud is not managed; leave it out")
        return value
