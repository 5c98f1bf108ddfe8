"""Addresses of one subnet: single ones from the bottom, whole blocks from the top, what came back first."""

from __future__ import annotations

import ipaddress
from collections import deque

from ipam.errors import SubnetExhausted
from ipam.model import Subnet, members
from ipam.simulation.model import SubnetResult, SubnetRule

VPC = "vpc"


class Space:
    """Never gives an address twice that did not come back.

    :ivar free: addresses that nobody has.
    """

    def __init__(self, rule: SubnetRule, *, reserved: int, block: int) -> None:
        network = ipaddress.IPv4Network(rule.cidr)
        first = int(network.network_address)
        self.rule = rule
        self.size = network.num_addresses - reserved
        self.free = self.size - rule.taken
        self.least_free = self.free
        self.exhausted_at_s: float | None = None
        self.refusals = 0
        self._block = block
        self._bottom = first + max(reserved - 1, 0) + rule.taken
        self._top = first + network.num_addresses - (1 if reserved else 0)
        self._single: deque[str] = deque()
        self._blocks: list[str] = []

    def subnet(self) -> Subnet:
        """As the cloud tells it."""
        return Subnet(self.rule.id, self.rule.cidr, self.rule.zone, VPC, self.free, free_prefixes=self._whole())

    def _whole(self) -> int:
        if not self._block:
            return 0
        return len(self._blocks) + max(self._top // self._block - -(-self._bottom // self._block), 0)

    def take(self, count: int) -> list[str]:
        """Raises SubnetExhausted, having taken nothing, if there are fewer."""
        if count > self.free:
            raise SubnetExhausted(f"{self.rule.id} has {self.free} addresses left, not {count}")
        taken = []
        for _ in range(count):
            if self._single:
                taken.append(self._single.popleft())
            elif self._bottom < self._top:
                taken.append(_text(self._bottom))
                self._bottom += 1
            else:
                first, *others = members(self._blocks.pop())
                taken.append(first)
                self._single.extend(others)
        self._left(count)
        return taken

    def take_blocks(self, count: int) -> list[str]:
        """The same for whole blocks."""
        if count > self._whole():
            raise SubnetExhausted(f"{self.rule.id} has {self._whole()} whole blocks left, not {count}")
        taken = []
        bits = 32 - (self._block.bit_length() - 1)
        for _ in range(count):
            if self._blocks:
                taken.append(self._blocks.pop())
                continue
            first = (self._top // self._block - 1) * self._block
            # What lies between an uneven top and the block is left for single addresses.
            self._single.extend(_text(each) for each in range(first + self._block, self._top))
            self._top = first
            taken.append(f"{_text(first)}/{bits}")
        self._left(count * self._block)
        return taken

    def give_back(self, addresses: list[str], blocks: list[str]) -> None:
        self._single.extend(addresses)
        self._blocks.extend(blocks)
        self.free += len(addresses) + len(blocks) * self._block

    def refuse(self, at_s: float) -> None:
        """A node wanted more than there is."""
        self.refusals += 1
        if self.exhausted_at_s is None:
            self.exhausted_at_s = at_s

    def result(self) -> SubnetResult:
        return SubnetResult(self.rule.id, self.size, self.least_free, self.exhausted_at_s, self.refusals)

    def _left(self, taken: int) -> None:
        self.free -= taken
        self.least_free = min(self.least_free, self.free)


def _text(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
