"""Whose each address is. It is known by its VPC and its text, for VPCs of one account may have the same ranges.

Within an instance the text is enough, whatever VPCs its interfaces lie in: its node leases by the text, so an address
that the cloud tells of twice on one instance is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from ipam.model import AddressKey, CloudInterface, members
from ipam.plan import pod_addresses
from ipam.pools import Pool

# Addresses by VPC.
Held = Mapping[str, Set[str]]

NONE: Final[Set[str]] = frozenset()
_NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


class Owners:
    """Names of pools by address. A dict for each VPC: pairs as keys would take 7 MB more for 100,000 addresses."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, str]] = {}

    def within(self, vpc_id: str) -> Mapping[str, str]:
        """By the addresses of one VPC."""
        return self._of.get(vpc_id, _NOBODY)

    def get(self, key: AddressKey) -> str:
        """Empty: nobody has it."""
        vpc_id, address = key
        return self.within(vpc_id).get(address, "")

    def give(self, vpc_id: str, addresses: Iterable[str], name: str) -> None:
        known = self._of.setdefault(vpc_id, {})
        for address in addresses:
            known[address] = name

    def take(self, vpc_id: str, addresses: Iterable[str]) -> None:
        """They are nobody's."""
        known = self._of.get(vpc_id, {})
        for address in addresses:
            known.pop(address, None)
        if not known:
            self._of.pop(vpc_id, None)


def held(pool: Pool, interfaces: Iterable[CloudInterface]) -> dict[str, set[str]]:
    """The addresses that pods of the pool may have on these interfaces, by VPC."""
    found: dict[str, set[str]] = {}
    for each in interfaces:
        found.setdefault(each.vpc_id, set()).update(pod_addresses(pool.spec, each))
    return found


def key_of(pool: Pool, address: str) -> AddressKey:
    """An address of the pool's instance with the VPC that it lies in; empty: no interface has it."""
    interfaces = pool.instance.interfaces if pool.instance is not None else ()
    if len({each.vpc_id for each in interfaces}) > 1:
        interfaces = tuple(each for each in interfaces if address in (each.primary_address, *each.all_addresses))
    return (interfaces[0].vpc_id if interfaces else ""), address


def without(interface: CloudInterface, addresses: set[str]) -> CloudInterface:
    """The interface but for addresses that are not its own. A prefix goes whole, and with its primary address in
    dispute the interface carries no pods."""
    return replace(
        interface,
        addresses=tuple(each for each in interface.addresses if each not in addresses),
        prefixes=tuple(each for each in interface.prefixes if addresses.isdisjoint(members(each))),
        status="disputed" if interface.primary_address in addresses else interface.status,
    )
