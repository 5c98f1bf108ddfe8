"""One pool of a node, the default one or a named one: what it wants, what it has, what it says it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from ipam.forecast import Estimate, Forecast
from ipam.model import AddressState, Instance, IntentKind, NodeSpec, PoolInterface, Subnet, Usage
from ipam.plan import attached, carries_pods, pod_addresses, pod_interfaces
from ipam.watermarks import unserved

# A node numbers interfaces of all its cards in one row: its routing tables are named after them.
INDICES_A_CARD = 32


@dataclass(frozen=True, slots=True)
class Counts:
    """Addresses for pods. `attached` is without those being released; `used` includes those cooling."""

    attached: int
    used: int
    pending: int

    @property
    def waiting(self) -> int:
        """Pods for which nothing is free here."""
        return unserved(self.attached, self.used, self.pending)


class Pool:
    """One pool of a node. Times are monotonic seconds, `synced_at` excepted.

    :ivar states: marked, ready and releasing addresses; the others are available, or the node's own business.
    :ivar unanswered: addresses whose marking the node never answered, and when they may be marked again.
        Its answer may still be on its way, and must not be taken for the answer to a later marking.
    :ivar holds: kinds of intents that are not opened before a time, because the last one of the kind was of no avail.
    :ivar gone: the cloud says that there is no such instance, since `gone_since`.
    :ivar misses: how often in a row reading the instance did not bring what the node can be told.
    :ivar session: which of the node's connections is the present one.
    :ivar forecast: what the node's starts and stops say of its demand, where its marks follow it.
    :ivar wish: marks computed for `wished_for`, used until `wish_until`; see wishes.py.
    :ivar warmed: the node has had the addresses that it starts with, once.
    :ivar idle_interfaces: interfaces on which nothing is used, and since when.
    :ivar leaving: the interface that is being released in one piece.
    :ivar batch_at: when the next batch of an excess may be released.
    :ivar names: named pools that the node has, as it said with this, its default one; None: it did not say.
    :ivar owes: addresses of the subnets `owes_in` that it was asked for until `owes_until`; see reclaim.py.
    """

    __slots__ = (
        "announced_at", "batch_at", "connected", "deficit_since", "error", "excess_low", "excess_since", "forecast",
        "fruitless", "gone", "gone_since", "holds", "idle_interfaces", "instance", "intent_id", "leaving", "look_at",
        "marked_at", "merged_at", "misses", "names", "owes", "owes_in", "owes_until", "replays",
        "reread", "session", "spec", "states", "synced_at", "unanswered",
        "usage", "warmed", "wish", "wish_until", "wished_for",
    )  # fmt: skip

    def __init__(self, spec: NodeSpec) -> None:
        self.spec = spec
        self.connected = False
        self.session = 0
        self.usage: Usage | None = None
        self.instance: Instance | None = None
        self.gone = False
        self.gone_since: float | None = None
        self.misses = 0
        self.states: dict[str, AddressState] = {}
        self.unanswered: dict[str, float] = {}
        self.holds: dict[IntentKind, float] = {}
        self.replays: dict[IntentKind, int] = {}
        self.intent_id = ""
        self.reread = False
        self.error = ""
        self.fruitless = 0
        self.deficit_since: float | None = None
        self.excess_since: float | None = None
        self.excess_low = 0
        self.marked_at = -math.inf
        self.merged_at = -math.inf
        self.announced_at = -math.inf
        self.look_at = math.inf
        self.synced_at = 0.0
        self.forecast: Forecast | None = None
        self.wish: Estimate | None = None
        self.wish_until = -math.inf
        self.wished_for: NodeSpec | None = None
        self.warmed = False
        self.idle_interfaces: dict[str, float] = {}
        self.leaving = ""
        self.batch_at = -math.inf
        self.names: frozenset[str] | None = None
        self.owes = 0
        self.owes_in: frozenset[str] = frozenset()
        self.owes_until = -math.inf

    def counts(self) -> Counts:
        usage = self.usage or Usage()
        busy = usage.in_use | usage.cooling
        if self.instance is None:
            return Counts(0, len(busy), usage.pending_pods)
        used = 0
        releasing = 0
        total = 0
        for interface in pod_interfaces(self.spec, self.instance):
            addresses = pod_addresses(self.spec, interface)
            total += len(addresses)
            if busy:
                used += sum(address in busy for address in addresses)
        if self.states:
            releasing = sum(state is AddressState.RELEASING for state in self.states.values())
        return Counts(total - releasing, used, usage.pending_pods)

    def attached(self) -> int:
        return attached(self.spec, self.instance)

    def hidden(self, subnets: Mapping[str, Subnet]) -> str:
        """Id of a subnet that is not known and has an interface for pods in it, of which the node cannot be told."""
        if self.instance is None:
            return ""
        ids = (each.subnet_id for each in pod_interfaces(self.spec, self.instance))
        return next((subnet_id for subnet_id in ids if subnet_id not in subnets), "")

    def in_state(self, state: AddressState) -> list[str]:
        return [address for address, held in self.states.items() if held is state]

    def interfaces(self, subnets: Mapping[str, Subnet]) -> dict[str, PoolInterface]:
        """What the node is told: interfaces whose subnet is known, since nothing can be routed from the others."""
        return self._interfaces(subnets, self.states)

    def interfaces_for_people(self, subnets: Mapping[str, Subnet]) -> dict[str, PoolInterface]:
        """The same with the node's own words on what is in use."""
        usage = self.usage or Usage()
        states = dict.fromkeys(usage.cooling, AddressState.COOLING)
        states |= dict.fromkeys(usage.in_use, AddressState.IN_USE)
        return self._interfaces(subnets, states | self.states)

    def _interfaces(
        self, subnets: Mapping[str, Subnet], states: Mapping[str, AddressState]
    ) -> dict[str, PoolInterface]:
        if self.instance is None:
            return {}
        told = {}
        for each in self.instance.interfaces:
            subnet = subnets.get(each.subnet_id)
            if subnet is None or not carries_pods(self.spec, each):
                continue
            told[each.id] = PoolInterface(
                id=each.id, mac=each.mac, device_index=each.device_index + each.network_card * INDICES_A_CARD,
                subnet_id=subnet.id, subnet_cidr=subnet.cidr, gateway=subnet.gateway or gateway(subnet.cidr),
                primary_address=each.primary_address, vpc_id=each.vpc_id, zone=each.zone,
                vpc_cidrs=subnet.vpc_cidrs, security_group_ids=each.security_group_ids,
                addresses={a: states.get(a, AddressState.AVAILABLE) for a in pod_addresses(self.spec, each)},
                instance_tags=self.instance.tags, prefixes=each.prefixes,
                ipv6_addresses=each.ipv6_addresses if self.spec.ipv6 else (),
                ipv6_prefixes=each.ipv6_prefixes if self.spec.ipv6 else (),
                ipv6_gateway=gateway6(subnet.ipv6_cidr) if self.spec.ipv6 and subnet.ipv6_cidr else "",
                pool=self.spec.pool,
            )  # fmt: skip
        return told


_gateways: dict[str, str] = {}


def gateway(cidr: str) -> str:
    """The subnet's router: its first address. Remembered, for a fleet has few subnets and many interfaces."""
    known = _gateways.get(cidr)
    if known is None:
        known = _gateways[cidr] = str(IPv4Network(cidr)[1])
    return known


def gateway6(cidr: str) -> str:
    """The subnet's router of IPv6, remembered likewise."""
    known = _gateways.get(cidr)
    if known is None:
        known = _gateways[cidr] = str(IPv6Network(cidr)[1])
    return known
