"""What may be set for Azure, checked before the first call: a wrong id would else be found out pods later."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from ipam.errors import InvalidInput
from ipam.model import NO_TAGS

SUBSCRIPTION: Final = r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
LOCATION: Final = r"[a-z][a-z0-9]{2,39}"
_GROUP: Final = re.compile(r"[\w().-]{1,90}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the subscription the provider looks at; empty: everything.

    :param resource_groups: of virtual machines, scale sets and their interfaces; virtual networks may be elsewhere.
    :param vpc_ids: virtual networks, by their whole ids.
    """

    resource_groups: Sequence[str] = ()
    vpc_ids: Sequence[str] = ()
    instance_tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    security_group_tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)


def check(account: str, region: str, endpoint_url: str | None, scope: Scope) -> None:
    """Raises InvalidInput with the field to blame."""
    if not re.fullmatch(SUBSCRIPTION, account):
        raise InvalidInput(f"account is {account!r}", field="account", remedy="give the subscription's id, a UUID")
    if not re.fullmatch(LOCATION, region):
        raise InvalidInput(f"region is {region!r}", field="region", remedy="give a location's name, as westeurope")
    for group in scope.resource_groups:
        if not _GROUP.fullmatch(group) or group.endswith("."):
            raise InvalidInput(
                f"resource_groups holds {group!r}",
                field="resource_groups",
                remedy="give resource groups by their names",
            )
    if endpoint_url is not None:
        _check_endpoint(endpoint_url)


def _check_endpoint(url: str) -> None:
    remedy = (
        "give https://..., as https://management.chinacloudapi.cn, or http:// of this machine for a fake; none: Azure"
    )
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
        wrong = wrong or (parts.scheme == "http" and not is_loopback(url))
    except ValueError:
        wrong = True
    if wrong:
        raise InvalidInput(f"endpoint_url is {url!r}", field="endpoint_url", remedy=remedy)


def is_loopback(url: str) -> bool:
    """Tokens go over TLS only; plain HTTP is for a fake on this machine, which gets none."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
