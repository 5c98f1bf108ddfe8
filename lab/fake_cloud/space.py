"""Addresses and /28 prefixes of one subnet. What it refuses, each cloud words itself.

The free addresses are the bits of one integer: a subnet is at most a /16, and Python finds a set bit in 8 KiB faster
than a loop finds anything. Addresses are handed out from a random place on, as the cloud does: that is what makes
prefixes scarce in a subnet that is half full.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import Literal

from lab.fake_cloud.errors import ApiError

PREFIX_LENGTH = 28
PREFIX_SIZE = 1 << (32 - PREFIX_LENGTH)
_BLOCK = (1 << PREFIX_SIZE) - 1
PREFIX_LENGTH6 = 80
_BLOCK6_BITS = 128 - PREFIX_LENGTH6


# What a space refuses, with the subnet's id or the address or prefix concerned.
Refusal = Literal["exhausted", "no-prefix", "outside", "reserved", "in-use", "prefix-in-use", "malformed", "no-block"]
Refuse = Callable[[Refusal, str], ApiError]


class Space:
    """IPv4 of a subnet. `free` is exact at any time.

    :param first: addresses at the beginning that belong to the cloud, the network's own included; `last` at the end.
    """

    def __init__(
        self,
        subnet_id: str,
        network: ipaddress.IPv4Network,
        chance: random.Random,
        refuse: Refuse,
        *,
        first: int = 4,
        last: int = 1,
    ) -> None:
        self.subnet_id = subnet_id
        self.network = network
        self._base = int(network.network_address)
        self._size = network.num_addresses
        self._chance = chance
        self._refuse = refuse
        self._usable = range(first, self._size - last)
        self._bits = ((1 << (self._size - last)) - 1) & ~((1 << first) - 1)
        self.free = len(self._usable)

    def address(self) -> str:
        """Takes a free address."""
        if not self.free:
            raise self._refuse("exhausted", self.subnet_id)
        start = self._chance.randrange(self._size)
        above = self._bits >> start
        offset = start if above else 0
        bits = above or self._bits
        return self._take(offset + (bits & -bits).bit_length() - 1)

    def addresses(self, count: int) -> tuple[str, ...]:
        """Takes `count` addresses or none."""
        if count > self.free:
            raise self._refuse("exhausted", self.subnet_id)
        return tuple(self.address() for _ in range(count))

    def require(self, address: str) -> None:
        """Raises ApiError unless `address` could be taken."""
        number = self._number(address)
        if number is None:
            raise self._refuse("outside", address)
        if number not in self._usable:
            raise self._refuse("reserved", address)
        if not self._bits >> number & 1:
            raise self._refuse("in-use", address)

    def claim(self, address: str) -> str:
        """Takes this very address."""
        self.require(address)
        number = self._number(address)
        assert number is not None
        return self._take(number)

    def release(self, address: str) -> None:
        number = self._number(address)
        assert number is not None
        assert not self._bits >> number & 1, f"{address} released twice"
        self._bits |= 1 << number
        self.free += 1

    def prefixes(self, count: int) -> tuple[str, ...]:
        """Takes `count` wholly free /28 or none."""
        blocks = [number for number in range(0, self._size, PREFIX_SIZE) if self._bits >> number & _BLOCK == _BLOCK]
        if len(blocks) < count:
            raise self._refuse("no-prefix", self.subnet_id)
        return tuple(self._take_block(number) for number in self._chance.sample(blocks, count))

    def require_prefix(self, prefix: str) -> None:
        number = self._block(prefix)
        if self._bits >> number & _BLOCK != _BLOCK:
            raise self._refuse("prefix-in-use", prefix)

    def claim_prefix(self, prefix: str) -> str:
        self.require_prefix(prefix)
        return self._take_block(self._block(prefix))

    def release_prefix(self, prefix: str) -> None:
        number = self._block(prefix)
        assert not self._bits >> number & _BLOCK, f"{prefix} released twice"
        self._bits |= _BLOCK << number
        self.free += PREFIX_SIZE

    def _number(self, address: str) -> int | None:
        try:
            number = int(ipaddress.IPv4Address(address)) - self._base
        except ValueError:
            raise self._refuse("malformed", address) from None
        return number if 0 <= number < self._size else None

    def _block(self, prefix: str) -> int:
        try:
            network = ipaddress.IPv4Network(prefix)
        except ValueError:
            raise self._refuse("malformed", prefix) from None
        if network.prefixlen != PREFIX_LENGTH or not network.subnet_of(self.network):
            raise self._refuse("no-block", prefix)
        return int(network.network_address) - self._base

    def _take(self, number: int) -> str:
        self._bits &= ~(1 << number)
        self.free -= 1
        return str(ipaddress.IPv4Address(self._base + number))

    def _take_block(self, number: int) -> str:
        self._bits &= ~(_BLOCK << number)
        self.free -= PREFIX_SIZE
        return f"{ipaddress.IPv4Address(self._base + number)}/{PREFIX_LENGTH}"


class Space6:
    """IPv6 of a subnet: practically without end, so only uniqueness is kept, of addresses and of /80 blocks."""

    def __init__(self, network: ipaddress.IPv6Network, chance: random.Random, refuse: Refuse) -> None:
        self.network = network
        self._base = int(network.network_address)
        self._chance = chance
        self._refuse = refuse
        self._used: set[int] = set()
        self._blocks: set[int] = set()

    def address(self) -> str:
        while not self._is_free(number := self._chance.randrange(16, self.network.num_addresses - 1)):
            pass
        self._used.add(number)
        return str(ipaddress.IPv6Address(self._base + number))

    def prefix(self) -> str:
        """Takes a block that is wholly free."""
        blocks = self.network.num_addresses >> _BLOCK6_BITS
        # The first and the last block hold what the cloud reserves.
        while (block := self._chance.randrange(1, blocks - 1)) in self._blocks or self._holds(block):
            pass
        return self._take_block(block)

    def claim_prefix(self, prefix: str) -> str:
        block = self._block(prefix)
        if block in self._blocks or self._holds(block):
            raise self._refuse("prefix-in-use", prefix)
        return self._take_block(block)

    def release_prefix(self, prefix: str) -> None:
        self._blocks.remove(self._block(prefix))

    def _is_free(self, number: int) -> bool:
        return number not in self._used and number >> _BLOCK6_BITS not in self._blocks

    def _holds(self, block: int) -> bool:
        """Whether single addresses of it are taken."""
        return any(number >> _BLOCK6_BITS == block for number in self._used)

    def _block(self, prefix: str) -> int:
        try:
            network = ipaddress.IPv6Network(prefix)
        except ValueError:
            raise self._refuse("malformed", prefix) from None
        if network.prefixlen != PREFIX_LENGTH6 or not network.subnet_of(self.network):
            raise self._refuse("no-block", prefix)
        return (int(network.network_address) - self._base) >> _BLOCK6_BITS

    def _take_block(self, block: int) -> str:
        self._blocks.add(block)
        return str(ipaddress.IPv6Network((self._base + (block << _BLOCK6_BITS), PREFIX_LENGTH6)))

    def require(self, address: str) -> None:
        try:
            number = int(ipaddress.IPv6Address(address)) - self._base
        except ValueError:
            raise self._refuse("malformed", address) from None
        if not 4 <= number < self.network.num_addresses - 1:
            raise self._refuse("outside", address)
        if not self._is_free(number):
            raise self._refuse("in-use", address)

    def claim(self, address: str) -> str:
        self.require(address)
        self._used.add(int(ipaddress.IPv6Address(address)) - self._base)
        return str(ipaddress.IPv6Address(address))

    def release(self, address: str) -> None:
        self._used.remove(int(ipaddress.IPv6Address(address)) - self._base)
