"""What may be set for Alibaba Cloud, checked before the first call: a wrong id would else be found out pods later."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from ipam.errors import InvalidInput
from ipam.providers.aws_settings import Scope, check_cidr, check_tags

_ACCOUNT: Final = re.compile(r"[0-9]{16}")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")


def check(account: str, region: str, endpoint_url: str | None, scope: Scope, exclude: Mapping[str, str]) -> None:
    """Raises InvalidInput with the field to blame."""
    if not _ACCOUNT.fullmatch(account):
        raise InvalidInput(f"account is {account!r}", field="account", remedy="give the account's 16 digits")
    if not _REGION.fullmatch(region):
        raise InvalidInput(f"region is {region!r}", field="region", remedy="give a region's id, as eu-central-1")
    if endpoint_url is not None:
        endpoint(endpoint_url)
    check_ids("vpc_ids", "vpc", scope.vpc_ids)
    for cidr in scope.vpc_cidrs:
        check_cidr("vpc_cidrs", cidr)
    for name in ("instance_tags", "subnet_tags", "security_group_tags"):
        check_tags(name, getattr(scope, name))
    check_tags("exclude", exclude)


def endpoint(url: str) -> tuple[str, str]:
    """Protocol and host:port as the SDK takes them. Raises InvalidInput.

    Requests are signed but not encrypted without TLS, so that plain HTTP is for a server on this machine only.
    """
    remedy = "give an address as http://127.0.0.1:4591, or none for Alibaba Cloud itself"
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong:
        raise InvalidInput(f"endpoint_url is {url!r}", field="endpoint_url", remedy=remedy)
    if parts.scheme == "http" and not _loopback(parts.hostname or ""):
        remedy = "use https://, or a server on this machine"
        raise InvalidInput(f"endpoint_url is {url!r}: not encrypted", field="endpoint_url", remedy=remedy)
    return parts.scheme.upper(), parts.netloc


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_ids(name: str, kind: str, ids: Iterable[str]) -> None:
    """:param kind: what ids begin with, as "vsw"."""
    for each in ids:
        if not re.fullmatch(rf"{kind}-[0-9a-z]{{8,32}}", each):
            remedy = f"an id looks like {kind}-bp15zckdt37pq72zvwvv2"
            raise InvalidInput(f"{name} holds {each!r}", field=name, remedy=remedy)


__all__ = ["Scope", "check", "check_ids", "endpoint"]
