"""Addresses of a node's own ranges, for sites without a cloud: the pool sees an interface without a device.

IPv4 leads: the pool leases IPv4 addresses, and an IPv6 range beside it gives each pod the address with the same last 32
bits, so one allocator serves both. With IPv6 alone the pool leases the first addresses behind FIRST6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from ipam.model import AddressState, PoolInterface

# Below it lie the range itself, the gateway, and whatever else an administrator numbers by hand.
FIRST6: Final = 0x1000
DEFAULT_SIZE6: Final = 4096
_SHORTEST4, _LONGEST4 = 16, 30
_LONGEST_DUAL6: Final = 96


@dataclass(frozen=True, slots=True)
class PodRanges:
    """At most one range of each family, and at least one.

    :ivar size6: how many addresses are leased from a range of IPv6 that stands alone.
    """

    range4: IPv4Network | None
    range6: IPv6Network | None
    size6: int = DEFAULT_SIZE6

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(str(one) for one in (self.range4, self.range6) if one is not None)

    def interface(self) -> PoolInterface:
        """What the pool leases from: every address but the first, the gateway (the one behind it) and, of IPv4, the
        last. Its id is the range."""
        leading = self.range4 or self.range6
        assert leading is not None
        return PoolInterface(
            id=str(leading),
            mac="",
            device_index=0,
            subnet_id="",
            subnet_cidr=str(leading),
            gateway=str(leading[1]),
            primary_address="",
            vpc_id="",
            zone="",
            vpc_cidrs=(),
            security_group_ids=(),
            addresses=dict.fromkeys(self._addresses(), AddressState.AVAILABLE),
        )

    def address6_of(self, address: str) -> str:
        """The IPv6 address that goes with a leased IPv4 one; empty if there is none."""
        leased = ip_address(address)
        if self.range6 is None or leased.version == 6:
            return ""
        return str(IPv6Address(int(self.range6.network_address) | int(leased)))

    def _addresses(self) -> Iterator[str]:
        if self.range4 is not None:
            for offset in range(2, self.range4.num_addresses - 1):
                yield str(self.range4[offset])
        elif self.range6 is not None:
            for offset in range(FIRST6, FIRST6 + self.size6):
                yield str(self.range6[offset])


def parse(texts: Sequence[str], size6: int = DEFAULT_SIZE6) -> PodRanges:
    """Reads ranges such as "10.1.0.0/24" and "fd00:1::/64". Raises ValueError, which says what to write instead."""
    found: dict[int, IPv4Network | IPv6Network] = {}
    for text in texts:
        try:
            one = ip_network(text)
        except ValueError as error:
            raise ValueError(f"{error}; write a range such as 10.1.0.0/24 or fd00:1::/64") from error
        if one.version in found:
            raise ValueError(f"{found[one.version]} and {one} are both IPv{one.version}; a node has one range of each")
        if one.is_multicast or one.is_loopback or one.is_link_local:
            raise ValueError(f"{one} is no range for pods; take a private one, such as 10.1.0.0/24 or fd00:1::/64")
        found[one.version] = one
    range4, range6 = found.get(4), found.get(6)
    assert range4 is None or isinstance(range4, IPv4Network)
    assert range6 is None or isinstance(range6, IPv6Network)
    if range4 is None and range6 is None:
        raise ValueError("name at least one range")
    if range4 is not None and not _SHORTEST4 <= range4.prefixlen <= _LONGEST4:
        raise ValueError(f"{range4}: expected a prefix of {_SHORTEST4} to {_LONGEST4} bits")
    if range6 is not None and range4 is not None and range6.prefixlen > _LONGEST_DUAL6:
        raise ValueError(f"{range6}: expected a prefix of at most {_LONGEST_DUAL6} bits beside a range of IPv4")
    if range6 is not None and range4 is None and range6.num_addresses < FIRST6 + size6:
        raise ValueError(f"{range6} has no room for {size6} addresses behind ::{FIRST6:x}; a /64 has")
    return PodRanges(range4, range6, size6)


__all__ = ["DEFAULT_SIZE6", "FIRST6", "PodRanges", "parse"]
