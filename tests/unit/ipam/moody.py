"""Who lives in the state machines of machine.py: a cloud in bad moods, and a node daemon without a kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ipam.model import AddressKey, AddressState, CloudInterface, Instance, NodeSpec, SecurityGroup, Subnet, Usage
from ipam.testing import FakeCloud

SUBNETS = (
    Subnet("subnet-a", "10.0.0.0/25", "zone-a", "vpc-1", 0, ipv6_cidr="fd00:1::/64"),
    Subnet("subnet-b", "10.0.1.0/25", "zone-a", "vpc-1", 0, ipv6_cidr="fd00:2::/64"),
)
# Another VPC of the account, with the same ranges.
OTHER_SUBNETS = (
    Subnet("subnet-c", "10.0.0.0/25", "zone-a", "vpc-2", 0),
    Subnet("subnet-d", "10.0.1.0/25", "zone-a", "vpc-2", 0),
)
GROUPS = (SecurityGroup("sg-1", "vpc-1"), SecurityGroup("sg-2", "vpc-2"))
TO_RELEASE = {AddressState.MARKED, AddressState.READY, AddressState.RELEASING}


class MoodyCloud(FakeCloud):
    """A cloud whose readings may be half a minute old, and that may give one address to two interfaces."""

    def __init__(self) -> None:
        super().__init__(subnets=(*SUBNETS, *OTHER_SUBNETS), security_groups=GROUPS, page_size=1)
        self.lags_until = 0.0
        self._seen: dict[str, Instance] = {}
        self.doubled: dict[AddressKey, str] = {}  # address -> the interface that has it wrongly

    def reads_lag(self, seconds: float) -> None:
        """Readings tell what is now for so long, whatever is written meanwhile."""
        if self.clock.monotonic() >= self.lags_until:
            self._seen = {each: self._instance(each) for each in self._instances if each not in self._hidden}
        self.lags_until = self.clock.monotonic() + seconds

    def _as_seen(self, instance: Instance) -> Instance:
        lags = self.clock.monotonic() < self.lags_until
        return self._seen.get(instance.id, instance) if lags else instance

    def instance(self, instance_id: str) -> Instance:
        return self._as_seen(super().instance(instance_id))

    def inventory(self) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        for instances, detached in super().inventory():
            yield [self._as_seen(each) for each in instances], detached

    def give_twice(self, address: str, interface_id: str) -> None:
        self.doubled[self._interfaces[interface_id].vpc_id, address] = interface_id
        self._set(interface_id, (*self._interfaces[interface_id].addresses, address))

    def mend(self, used: Mapping[AddressKey, str]) -> None:
        """Each address has one owner again: the one whose pod has it, else the interface that had it first.

        :param used: instances by the addresses that their pods have.
        """
        for key, other in self.doubled.items():
            owners = self._owners(key)
            rightful = [each.id for each in owners if each.instance_id and each.instance_id == used.get(key)]
            for each in owners:
                if each.id != rightful[0] if rightful else each.id == other:
                    self._set(each.id, tuple(one for one in each.addresses if one != key[1]))
        self.doubled.clear()

    def unassign_addresses(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        if interface_id not in self._interfaces:
            super().unassign_addresses(interface_id=interface_id, addresses=addresses)
            return
        self._let_go(interface_id, addresses)
        interface = self._interfaces[interface_id]
        left = [a for a in addresses if a in interface.addresses or (interface.vpc_id, a) not in self.doubled]
        super().unassign_addresses(interface_id=interface_id, addresses=left)

    def _drop(self, interface_id: str) -> None:
        self._let_go(interface_id, self._interfaces[interface_id].addresses)
        super()._drop(interface_id)

    def _let_go(self, interface_id: str, addresses: Sequence[str]) -> None:
        """Of those with two owners this interface is none any more; they do not become free by that."""
        vpc_id = self._interfaces[interface_id].vpc_id
        for key in [(vpc_id, each) for each in addresses if (vpc_id, each) in self.doubled]:
            owners = [each.id for each in self._owners(key)]
            if interface_id in owners and len(owners) > 1:
                self._set(interface_id, tuple(a for a in self._interfaces[interface_id].addresses if a != key[1]))
                del self.doubled[key]

    def _owners(self, key: AddressKey) -> list[CloudInterface]:
        return [each for each in self._interfaces.values() if each.vpc_id == key[0] and key[1] in each.addresses]

    def _set(self, interface_id: str, addresses: tuple[str, ...]) -> None:
        self._interfaces[interface_id] = replace(self._interfaces[interface_id], addresses=addresses)


@dataclass
class SimNode:
    """A node daemon: leases from what it was told, fences what is marked, journals both."""

    spec: NodeSpec
    vpc_id: str = "vpc-1"
    up: bool = True
    connected: bool = False
    session: int = 0
    sequence: int = 0
    pool: dict[str, AddressState] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    pods: set[str] = field(default_factory=set)
    cooling: set[str] = field(default_factory=set)
    fenced: set[str] = field(default_factory=set)
    waiting: int = 0
    says: deque[tuple[int, Usage]] = field(default_factory=deque)
    news: dict[str, AddressState] | None = None

    def leasable(self) -> set[AddressKey]:
        """Addresses that it lets pods have."""
        return {(self.vpc_id, address) for address in self.pods | set(self.free())}

    def usage(self) -> Usage:
        self.sequence += 1
        marked = {address for address, state in self.pool.items() if state in TO_RELEASE}
        return Usage(
            in_use=frozenset(self.pods), cooling=frozenset(self.cooling), ready=frozenset(self.fenced),
            refused=frozenset(marked - self.fenced), pending_pods=self.waiting, sequence=self.sequence,
        )  # fmt: skip

    def say(self) -> None:
        if self.connected:
            self.says.append((self.session, self.usage()))

    def hear(self) -> None:
        if self.news is None or not self.connected:
            return
        self.pool, self.news = self.news, None
        for address, state in self.pool.items():
            busy = address in self.pods or address in self.cooling
            if state in TO_RELEASE and not busy:
                self.fenced.add(address)
            elif state not in TO_RELEASE:
                self.fenced.discard(address)
        self.fenced &= self.pool.keys()
        self.cooling &= self.pool.keys()
        self.say()

    def free(self) -> list[str]:
        taken = self.pods | self.cooling | self.fenced
        return [a for a in self.pool if a not in taken and self.homes[a] in self.links]

    def start_pod(self) -> None:
        free = self.free()
        if free:
            self.pods.add(free[0])
            self.waiting = max(self.waiting - 1, 0)
        else:
            self.waiting += 1
        self.say()

    def stop_pod(self, choice: int) -> None:
        if self.pods:
            address = sorted(self.pods)[choice % len(self.pods)]
            self.pods.remove(address)
            self.cooling.add(address)
            self.say()
