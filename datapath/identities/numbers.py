"""Small numbers for other nodes' addresses: what the array `nodes` holds, and entries of addresses refer to.

A number belongs to an address, not to a node: a dual-stack node that is a next hop for both families has two, and a
node that changes its address gets another. Numbers stand in the kernel alone; a restart reads them back, so that
entries of a former life stay right.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection

from datapath.layout import NO_ADDRESS, Node
from datapath.maps import MapLike, slices


class NodeNumbers:
    """Not thread-safe. 0 is nobody's number."""

    def __init__(self, nodes: MapLike) -> None:
        self._nodes = nodes
        self._numbers: dict[bytes, int] = {}
        # Freed ones go to the end: an entry that still refers to a node that is gone shall not find another there.
        self._free: deque[int] = deque()
        start = Node.OFFSETS["address"]
        for keys, values, count in nodes.keys_batches():
            for key, value in zip(slices(keys, 4, count), slices(values, Node.SIZE, count), strict=True):
                number, address = int.from_bytes(key, sys.byteorder), value[start : start + 16]
                if address == NO_ADDRESS:
                    self._free.append(number)
                elif address not in self._numbers:
                    self._numbers[address] = number
        if self._free and self._free[0] == 0:
            self._free.popleft()

    def __len__(self) -> int:
        return len(self._numbers)

    def get(self, address: bytes) -> int:
        """0: it has none."""
        return self._numbers.get(address, 0)

    def claim(self, addresses: Collection[bytes]) -> int:
        """Gives each a number. Returns how many got none, as all are taken. Raises BpfRefused."""
        new = [address for address in dict.fromkeys(addresses) if address not in self._numbers]
        given = dict(zip(new, self._free, strict=False))
        self._write({number: address for address, number in given.items()})
        for _ in given:
            self._free.popleft()
        self._numbers.update(given)
        return len(new) - len(given)

    def keep(self, addresses: Collection[bytes]) -> bool:
        """Takes the numbers of all others back: nothing may refer to them any more. True if there were any."""
        gone = self._numbers.keys() - set(addresses)
        self._write({self._numbers[address]: NO_ADDRESS for address in gone})
        for address in gone:
            self._free.append(self._numbers.pop(address))
        return bool(gone)

    def _write(self, entries: dict[int, bytes]) -> None:
        if entries:
            keys = b"".join(number.to_bytes(4, sys.byteorder) for number in entries)
            values = b"".join(Node(address).pack() for address in entries.values())
            self._nodes.update_batch(keys, values, len(entries))
