"""What may be set for AWS, checked before the first call: a wrong id would else be found out pods later."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from ipam.errors import InvalidInput
from ipam.model import NO_TAGS

_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the account the provider looks at; empty: everything.

    :param vpc_ids: networks.
    :param vpc_cidrs: networks by their CIDR.
    :param instance_tags: instances that have all these tags; values may hold the wildcards * and ?.
    """

    vpc_ids: Sequence[str] = ()
    vpc_cidrs: Sequence[str] = ()
    instance_tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    subnet_tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)
    security_group_tags: Mapping[str, str] = field(default_factory=lambda: NO_TAGS)


def check(account: str, region: str, endpoint_url: str | None, scope: Scope, exclude: Mapping[str, str]) -> None:
    """Raises InvalidInput with the field to blame."""
    if not _ACCOUNT.fullmatch(account):
        raise InvalidInput(f"account is {account!r}", field="account", remedy="give the account's 12 digits")
    if not _REGION.fullmatch(region):
        raise InvalidInput(f"region is {region!r}", field="region", remedy="give a region's name, as eu-central-1")
    if endpoint_url is not None:
        _check_endpoint(endpoint_url)
    check_ids("vpc_ids", "vpc", scope.vpc_ids)
    for cidr in scope.vpc_cidrs:
        check_cidr("vpc_cidrs", cidr)
    for name in ("instance_tags", "subnet_tags", "security_group_tags"):
        check_tags(name, getattr(scope, name))
    check_tags("exclude", exclude)


def _check_endpoint(url: str) -> None:
    remedy = "give an address as http://127.0.0.1:4590, or none for AWS itself"
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong:
        raise InvalidInput(f"endpoint_url is {url!r}", field="endpoint_url", remedy=remedy)


def check_ids(name: str, kind: str, ids: Iterable[str]) -> None:
    """:param kind: what ids begin with, as "subnet"."""
    for each in ids:
        if not re.fullmatch(rf"{kind}-[0-9a-f]{{8,17}}", each):
            raise InvalidInput(
                f"{name} holds {each!r}", field=name, remedy=f"an id looks like {kind}-0123456789abcdef0"
            )


def check_cidr(name: str, cidr: str) -> None:
    try:
        ipaddress.IPv4Network(cidr)
    except ValueError as error:
        remedy = "write network and length without host bits, as 10.0.0.0/16"
        raise InvalidInput(f"{name} holds {cidr!r}: {error}", field=name, remedy=remedy) from None


def check_tags(name: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or key != key.strip():
            remedy = "a tag's key has 1 to 128 characters and no blanks around it"
            raise InvalidInput(f"{name} has the key {key!r}", field=name, remedy=remedy)
        if len(value) > 256:
            remedy = "a tag's value has at most 256 characters"
            raise InvalidInput(f"{name} has a value of {len(value)} characters for {key!r}", field=name, remedy=remedy)
