"""Facts of the datapath as frozen dataclasses; no I/O. Addresses and MACs are canonical text.

What is ours in a kernel that others configure too is told apart by these numbers, and nothing else is ever removed:
protocol PROTOCOL on routes, rules, addresses and neighbours; tables from TABLE_BASE on; two rule priorities; host
devices whose name starts with HOST_PREFIX (the overlay device among them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

PROTOCOL: Final = 80
TABLE_BASE: Final = 20000
TABLES: Final = 256
# Pods of this node and host routes of its administrator come before any cloud interface's table.
LOCAL_RULE_PRIORITY: Final = 5000
SOURCE_RULE_PRIORITY: Final = 5010
MAIN_TABLE: Final = 254
LOCAL_TABLE: Final = 255
# Lookup order within main: a pod's own route wins over those to other nodes, and these over the last, which stands in
# for a pod's while no pod has the address.
NODE_ROUTE_METRIC: Final = 2_000_000
IDLE_ROUTE_METRIC: Final = 4_000_000
HOST_PREFIX: Final = "plm"
# Next hops of every pod. They exist as permanent neighbours in the pod only, so nobody can quarrel over them.
POD_GATEWAY: Final = "169.254.1.1"
POD_GATEWAY6: Final = "fe80::506c:4d01"
# MAC of the host's end of every pod's veth. Each veth is a link of its own, so one serves all.
HOST_MAC: Final = "0e:50:4c:4d:00:01"
# The device that carries packets between nodes in VXLAN. Every node's has the same MAC, so none asks for another's.
OVERLAY_DEVICE: Final = "plm_vxlan"
OVERLAY_MAC: Final = "0e:50:4c:4d:00:02"


def host_device(container_id: str, interface_name: str) -> str:
    """Name of the host's end: the same for the same container interface on every start of every release."""
    return HOST_PREFIX + hashlib.sha256(f"{container_id}/{interface_name}".encode()).hexdigest()[:11]


def pod_mac(address: str) -> str:
    """MAC of a pod: locally administered, made of its address (of either family; a pod of both has that of its IPv4
    one), so that it needs no store."""
    packed = ip_address(address).packed[-4:]
    return "0e:58:" + ":".join(f"{byte:02x}" for byte in packed)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One interface of one pod as it should be in the kernel.

    :ivar host_device: name of the host's end of the veth pair.
    :ivar netns: path of the pod's network namespace.
    :ivar device: name of the pod's end.
    :ivar address: IPv4; empty for a pod of IPv6 only.
    :ivar address6: IPv6; empty for a pod of IPv4 only.
    :ivar mtu: bytes; 0: the kernel's default.
    :ivar label: whose it is, in the caller's words; written on the host's device, up to 255 bytes.
    """

    host_device: str
    netns: str
    device: str
    address: str
    mac: str
    mtu: int = 0
    label: str = ""
    address6: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those it has, IPv4 first."""
        return tuple(one for one in (self.address, self.address6) if one)


@dataclass(frozen=True, slots=True)
class Found:
    """A pod's interface as the node's side of the kernel tells it. One of the addresses may be empty."""

    host_device: str
    address: str
    label: str
    address6: str = ""


@dataclass(frozen=True, slots=True)
class CloudLink:
    """A cloud interface that carries pods: how to find it in the kernel and how to route from it.

    :ivar name: the cloud's id, for messages.
    :ivar device_index: the cloud's index; picks the routing table.
    :ivar gateway: next hop, the first address of the subnet.
    :ivar primary_address: the interface's own address. Set on the device if it lacks it, but for index 0, whose
        configuration is the host's business.
    :ivar addresses: the pods' addresses that the cloud delivers here, of both families.
    :ivar gateway6: next hop of IPv6; empty if there is none, then IPv6 addresses have no way out.
    :ivar primary_address6: as `primary_address`.
    """

    name: str
    mac: str
    device_index: int
    gateway: str
    primary_address: str
    addresses: frozenset[str]
    gateway6: str = ""
    primary_address6: str = ""

    @property
    def table(self) -> int:
        return TABLE_BASE + self.device_index


@dataclass(frozen=True, slots=True)
class Link:
    """A device as the kernel tells it.

    :ivar kind: "veth", "vlan", ...; empty for hardware.
    :ivar label: its alias.
    :ivar hardware: the kernel's ARPHRD number; 1: Ethernet.
    :ivar master: index of the bond, bridge or VRF that it belongs to; 0: none.
    """

    index: int
    name: str
    mac: str
    up: bool
    mtu: int
    kind: str = ""
    label: str = ""
    hardware: int = 1
    master: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """Of the family of its destination.

    :ivar gateway: empty: on the link.
    :ivar link_index: 0: unreachable.
    :ivar source: address that the node itself speaks from; empty: the kernel's choice.
    """

    destination: str
    prefix_length: int
    table: int
    link_index: int
    gateway: str = ""
    metric: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """`source` empty: from anywhere. `suppress_length`: results with a prefix this short or shorter are passed over.
    `family`: 4 or 6."""

    priority: int
    table: int
    source: str = ""
    suppress_length: int = -1
    family: int = 4


@dataclass(frozen=True, slots=True, order=True)
class ProxyNeighbour:
    """The node answers for a pod's address on the interface that the cloud delivers it to."""

    address: str
    link_index: int


@dataclass(frozen=True, slots=True, order=True)
class LinkAddress:
    address: str
    link_index: int


@dataclass(frozen=True, slots=True, order=True)
class NextHop:
    """A neighbour that packets to other machines go by."""

    address: str
    link_index: int


@dataclass(frozen=True, slots=True)
class NodePods:
    """Another node and where its pods are.

    :ivar addresses: of the node, either family.
    :ivar cidrs: ranges its pods have their addresses from, either family.
    """

    name: str
    addresses: tuple[str, ...]
    cidrs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExternalDevice:
    """A device that leads out of the node.

    :ivar mtu: bytes.
    :ivar kind: "vlan", "bond", ...; empty for hardware.
    :ivar has_ethernet: whether its frames have an Ethernet header.
    :ivar addresses4: global ones, primary ones first.
    :ivar addresses6: global ones, preferred ones first.
    :ivar masquerade4: the address that the node speaks from to the world by this device; empty: it has none.
    :ivar masquerade6: as `masquerade4`.
    """

    name: str
    index: int
    mac: str
    mtu: int
    kind: str = ""
    has_ethernet: bool = True
    addresses4: tuple[str, ...] = ()
    addresses6: tuple[str, ...] = ()
    masquerade4: str = ""
    masquerade6: str = ""


@dataclass(frozen=True, slots=True)
class RoutingState:
    """Everything of ours that is, or should be, in the kernel besides the pods' own devices and routes."""

    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    proxies: frozenset[ProxyNeighbour] = frozenset()
    addresses: frozenset[LinkAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """What a reconcile found and did.

    :ivar devices: kernel names of the cloud interfaces that are in force, by their id.
    :ivar mtus: MTU of those, in bytes.
    :ivar problems: why others are not, by id.
    :ivar added: objects put into the kernel.
    :ivar removed: objects taken out of it.
    """

    devices: Mapping[str, str] = field(default_factory=dict)
    mtus: Mapping[str, int] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class NodeRoutesReport:
    """
    :ivar routes: how many there are to be.
    :ivar added: put into the kernel, or replaced.
    :ivar removed: taken out of it.
    :ivar problems: why pods of a node are not reached, one sentence by the node's name.
    """

    routes: int = 0
    added: int = 0
    removed: int = 0
    problems: Mapping[str, str] = field(default_factory=dict)
