"""Ranges of source addresses as people write them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from datapath.errors import InvalidRange, OwnRange

Range = IPv4Network | IPv6Network

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_FIELD: Final = "cidrs"


def parse(text: str) -> Range:
    """A range, or a single address as a range of one. Raises InvalidRange with what to write instead."""
    if "%" in text:
        raise InvalidRange(
            f"{text!r} names a device", field=_FIELD, remedy="leave out % and what follows: it holds for all devices"
        )
    try:
        found = ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidRange(
            f"{text!r} is no range of addresses: {error}",
            field=_FIELD,
            remedy="write it like 192.0.2.0/24 or 2001:db8::/32",
        ) from error
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        mapped = IPv4Network((int(found.network_address) & 0xFFFFFFFF, found.prefixlen - 96))
        raise InvalidRange(f"{text!r} is an IPv4 range in IPv6 clothes", field=_FIELD, remedy=f"write it as {mapped}")
    if str(ip_address(text.partition("/")[0])) != str(found.network_address):
        raise InvalidRange(f"{text!r} has bits set beyond its prefix", field=_FIELD, remedy=f"write it as {found}")
    return found


def refuse_own(ranges: Iterable[Range], own: Collection[str]) -> None:
    """Raises OwnRange for the first range that holds one of the node's addresses or gateways: it lives on packets from
    there, and those that pretend to come from itself are dropped by the kernel anyway."""
    addresses = [ip_address(text) for text in own]
    for one in ranges:
        inside = next((address for address in addresses if address.version == one.version and address in one), None)
        if inside is not None:
            raise OwnRange(
                f"{one} holds {inside}, an address or gateway of this node",
                field=_FIELD,
                remedy="deny smaller ranges that leave it out, or use force if you know another way to the node",
            )
