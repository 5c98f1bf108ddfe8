"""What a cloud has no calls for: a provider that inherits this refuses them, and defines those that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from ipam.errors import Rejected
from ipam.model import PublicAddress


class Incapable:
    """The part of ipam.ports.CloudProvider that goes with capabilities. Every method raises Rejected."""

    def assign_prefixes(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        refuse("prefixes")

    def unassign_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        refuse("prefixes")

    def assign_ipv6(self, *, interface_id: str, count: int) -> Sequence[str]:
        refuse("IPv6 addresses")

    def unassign_ipv6(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        refuse("IPv6 addresses")

    def assign_ipv6_prefixes(self, *, interface_id: str, count: int) -> Sequence[str]:
        refuse("IPv6 prefixes")

    def unassign_ipv6_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        refuse("IPv6 prefixes")

    def set_security_groups(self, *, interface_id: str, security_group_ids: Sequence[str]) -> None:
        refuse("changes of a live interface's security groups")

    def set_tags(self, *, interface_id: str, tags: Mapping[str, str]) -> None:
        refuse("changes of a live interface's tags")

    def public_addresses(self, *, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        refuse("static public addresses")

    def associate_public_address(self, *, public_address_id: str, interface_id: str) -> None:
        refuse("static public addresses")


def refuse(what: str) -> NoReturn:
    raise Rejected(
        f"this cloud has no {what}", code="NotSupported", remedy="ask only for what the provider's capabilities name"
    )
