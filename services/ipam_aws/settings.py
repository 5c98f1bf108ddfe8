"""Settings of `ipam-aws`: one account and region of AWS, and the defaults of its nodes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from services.ipam.settings import IpamSettings, ids_like


def check_account(number: str) -> str:
    """Raises ValueError for what is no AWS account."""
    if not re.fullmatch(r"\d{12}", number):
        raise ValueError("write the account's number, 12 digits")
    return number


def check_region(region: str) -> str:
    """Raises ValueError for what is no AWS region."""
    if not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-\d+", region):
        raise ValueError("write a region such as eu-west-1")
    return region


def _ids(prefix: str) -> object:
    return ids_like(rf"{prefix}-[0-9a-z]+", f"{prefix}-0123456789abcdef0")


SubnetIds = Annotated[tuple[str, ...], _ids("subnet")]
VpcIds = Annotated[tuple[str, ...], _ids("vpc")]
SecurityGroupIds = Annotated[tuple[str, ...], _ids("sg")]
Account = Annotated[str, AfterValidator(check_account)]
Region = Annotated[str, AfterValidator(check_region)]


class Settings(IpamSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_IPAM_AWS_", extra="forbid")

    account: Account = Field(description="AWS account number, 12 digits")
    region: Region = Field(description="AWS region, such as eu-west-1")
    store: str = Field(
        "sqlite:////var/lib/plimsoll/ipam-aws.db", description="database: sqlite:////path or postgresql://..."
    )
    subnet_ids: SubnetIds = Field((), description="subnets of new interfaces; empty: by tags, else the node's own")
    security_group_ids: SecurityGroupIds = Field(
        (), description="groups of new interfaces; empty: by tags, else eth0's"
    )
