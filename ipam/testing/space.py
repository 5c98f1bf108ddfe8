"""Addresses of one subnet of the fake cloud: single ones from its start, whole blocks from its end."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from ipam.errors import Rejected, SubnetExhausted
from ipam.model import Subnet, members

RESERVED_PER_SUBNET = 5


@dataclass(slots=True)
class Space:
    """Addresses of one subnet as integers; the lowest free one is handed out first, so reuse is as fast as can be."""

    subnet: Subnet
    fresh: int
    end: int
    freed: list[int] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    serial6: int = 0x1000

    @property
    def free(self) -> int:
        return self.end - self.fresh + len(self.freed)

    def take_prefixes(self, count: int, size: int) -> list[str]:
        """Aligned blocks that are wholly free, of the end that single addresses come to last."""
        whole = sorted(block for block, free in Counter(each // size for each in self.freed).items() if free == size)
        untouched = max(self.end // size - -(-self.fresh // size), 0)
        if untouched + len(whole) < count:
            error = SubnetExhausted(
                f"subnet {self.subnet.id} has {untouched + len(whole)} free prefixes, {count} asked",
                code="InsufficientCidrBlocks",
            )
            error.subnet_id, error.prefixes = self.subnet.id, True
            raise error
        taken = []
        for _ in range(count):
            if untouched:
                untouched -= 1
                start = (self.end // size - 1) * size
                for number in range(start + size, self.end):
                    heappush(self.freed, number)
                self.end = start
            else:
                start = whole.pop(0) * size
                self.freed = [number for number in self.freed if not start <= number < start + size]
                heapify(self.freed)
            self.used.update(range(start, start + size))
            taken.append(f"{ipaddress.IPv4Address(start)}/{33 - size.bit_length()}")
        return taken

    def take6(self, length: int) -> str:
        """An IPv6 address (`length` 128), or a block; none is given twice."""
        if not self.subnet.ipv6_cidr:
            raise Rejected(f"subnet {self.subnet.id} has no IPv6 range", code="InvalidParameterValue")
        self.serial6 += 1
        base = int(ipaddress.IPv6Network(self.subnet.ipv6_cidr).network_address)
        if length == 128:
            return str(ipaddress.IPv6Address(base + self.serial6))
        return str(ipaddress.IPv6Network((base + (self.serial6 << (128 - length)), length)))

    def take(self, count: int) -> list[str]:
        if self.free < count:
            error = SubnetExhausted(
                f"subnet {self.subnet.id} has {self.free} free addresses, {count} asked",
                code="InsufficientFreeAddressesInSubnet",
            )
            error.subnet_id = self.subnet.id
            raise error
        taken = []
        for _ in range(count):
            if self.freed:
                number = heappop(self.freed)
            else:
                number = self.fresh
                self.fresh += 1
            self.used.add(number)
            taken.append(str(ipaddress.IPv4Address(number)))
        return taken

    def give_back_prefix(self, prefix: str) -> None:
        for address in members(prefix):
            self.give_back(address)

    def give_back(self, address: str) -> None:
        number = int(ipaddress.IPv4Address(address))
        self.used.remove(number)
        heappush(self.freed, number)


def space_of(subnet: Subnet) -> Space:
    network = ipaddress.IPv4Network(subnet.cidr)
    first = int(network.network_address)
    return Space(subnet, first + RESERVED_PER_SUBNET - 1, first + network.num_addresses - 1)
