"""One node: its interfaces and addresses, the pods that have them, the pods in line.

An address is free, leased, cooling, or fenced for a release. Pods get those of the oldest interface first, so that
younger ones, and whole prefixes, become free again.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, field

from ipam.model import CloudInterface, Instance, NodeSpec, Usage, members
from ipam.pools import Counts, Pool
from ipam.simulation.space import VPC

Wished = dict[tuple[int, ...], tuple[int, int]]

_PLACES = 1 << 20  # more than addresses of one interface


@dataclass(slots=True)
class Port:
    """An interface. `addresses` without those of `prefixes`."""

    id: str
    index: int
    card: int
    subnet_id: str
    primary: str
    addresses: dict[str, None] = field(default_factory=dict)
    prefixes: list[str] = field(default_factory=list)
    _known: CloudInterface | None = None

    def changed(self) -> None:
        """Addresses or prefixes have."""
        self._known = None

    def told(self, instance_id: str, zone: str) -> CloudInterface:
        """As the cloud tells it."""
        if self._known is None:
            self._known = self._told(instance_id, zone)
        return self._known

    def _told(self, instance_id: str, zone: str) -> CloudInterface:
        return CloudInterface(
            self.id, "", self.subnet_id, VPC, zone, self.primary, tuple(self.addresses), instance_id, self.id,
            self.index, self.card, prefixes=tuple(self.prefixes),
        )  # fmt: skip


class Node:
    """
    :ivar held: addresses that pods can have, fenced ones included.
    :ivar demand: its marks follow it.
    :ivar wishes: addresses to ask for and to give back, by state; shared by nodes that are alike.
    :ivar counted: how many of them the fleet's sum has by now.
    :ivar line: pods without an address, and since when.
    :ivar fenced: addresses that are about to be released; of these `releasing` are beyond return.
    :ivar work: what is owed to the cloud for this node, one thing at a time.
    """

    __slots__ = (
        "capacity", "cooling", "counted", "demand", "fenced", "free", "full", "held", "hold_until", "homes", "leases",
        "line", "look_at", "name", "pool", "ports", "releasing", "serial", "spec", "type", "wishes", "work", "zone",
    )  # fmt: skip

    def __init__(self, spec: NodeSpec, type_: str, zone: str, first: Port) -> None:
        self.name = spec.name
        self.spec = spec
        self.type = type_
        self.demand = spec.policy.follow_demand
        self.wishes: Wished = {}
        self.zone = zone
        self.ports = [first]
        self.pool = Pool(spec)
        self.pool.instance = self.instance()
        self.capacity = 0
        self.held = 0
        self.counted = 0
        self.free: list[tuple[int, str]] = []  # a heap
        self.homes: dict[str, int] = {}  # address -> its place among the free ones
        self.leases: dict[int, str] = {}
        self.cooling: deque[tuple[float, str]] = deque()
        self.line: dict[int, float] = {}
        self.fenced: list[str] = []
        self.releasing = 0
        self.work: object | None = None
        self.look_at = math.inf
        self.hold_until = -math.inf
        self.full = False
        self.serial = 0

    def instance(self) -> Instance:
        interfaces = tuple([port.told(self.name, self.zone) for port in self.ports])
        return Instance(
            self.name, self.type, self.zone, VPC, self.ports[0].subnet_id, security_group_ids=("group",),
            interfaces=interfaces,
        )  # fmt: skip

    def counts(self) -> Counts:
        return Counts(self.held - self.releasing, len(self.leases) + len(self.cooling), len(self.line))

    def usage(self) -> Usage:
        """In full; made only where whole prefixes matter."""
        return Usage(in_use=frozenset(self.leases.values()), cooling=frozenset(address for _, address in self.cooling))

    def expire(self, now: float) -> int:
        """Ends cooldowns that are over; returns of how many."""
        cooling = self.cooling
        before = len(cooling)
        while cooling and cooling[0][0] <= now:
            address = cooling.popleft()[1]
            heapq.heappush(self.free, (self.homes[address], address))
        return before - len(cooling)

    def lease(self, pod: int) -> bool:
        """Gives the pod an address if one is free."""
        if not self.free:
            return False
        self.leases[pod] = heapq.heappop(self.free)[1]
        return True

    def receive(self, port: Port, addresses: list[str]) -> None:
        """Addresses of `port` that are new. Those of a prefix stand together."""
        for address in addresses:
            self.serial += 1
            place = port.index * _PLACES + self.serial
            self.homes[address] = place
            heapq.heappush(self.free, (place, address))
        self.held += len(addresses)

    def fence(self, addresses: list[str]) -> None:
        """Of the free ones."""
        gone = set(addresses)
        self.free = [each for each in self.free if each[1] not in gone]
        heapq.heapify(self.free)
        self.fenced += addresses

    def lift(self, count: int) -> None:
        """Frees up to `count` fenced addresses again; of a prefix all or none."""
        lifted, self.fenced = self.fenced[:count], self.fenced[count:]
        split = [
            prefix for port in self.ports for prefix in port.prefixes if 0 < _common(prefix, lifted) < _size(prefix)
        ]
        for prefix in split:
            more = [each for each in self.fenced if each in members(prefix)]
            lifted += more
            self.fenced = [each for each in self.fenced if each not in more]
        for address in lifted:
            heapq.heappush(self.free, (self.homes[address], address))

    def forget(self, addresses: list[str]) -> None:
        """They are no more on the node."""
        for address in addresses:
            del self.homes[address]
        self.held -= len(addresses)

    def releasable(self, count: int) -> list[str]:
        """Up to `count` free addresses of the interface that can give most; single ones first, then whole prefixes."""
        free = {address for _, address in self.free}
        best: list[str] = []
        for port in self.ports:
            chosen = [address for address in reversed(port.addresses) if address in free][:count]
            for prefix in reversed(port.prefixes):
                whole = members(prefix)
                if len(chosen) + len(whole) <= count and free.issuperset(whole):
                    chosen += whole
            if len(chosen) >= len(best):
                best = chosen
        return best

    def addresses_of(self, port: Port) -> list[str]:
        """All that the interface has for pods."""
        found = [*port.addresses, *(address for prefix in port.prefixes for address in members(prefix))]
        return [port.primary, *found] if port.primary in self.homes else found


def _common(prefix: str, addresses: list[str]) -> int:
    return len(set(members(prefix)).intersection(addresses))


def _size(prefix: str) -> int:
    return len(members(prefix))
