"""What the fake cloud says is attached where, and what must change in the fabric for it; pure, no I/O.

The admin endpoint of a fake cloud tells all interfaces at a revision. `read_state` makes ports of those that are
plugged into an instance; `difference` says which ports and routes to take away and which to add.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

FIRST_DEVICE_NUMBER: Final = 5
# Longer ones first: some begin others.
_SIGNS: Final = (
    ("/providers/microsoft.network/networkinterfaces/", "~n"),
    ("/providers/microsoft.compute/virtualmachinescalesets/", "~s"),
    ("/providers/microsoft.compute/virtualmachines/", "~v"),
    ("/networkinterfaces/", "~i"),
    ("/virtualmachines/", "~m"),
    ("/resourcegroups/", "~g"),
    ("/subscriptions/", "~a"),
)
_FIRST: Final = "-"  # in a label: the next hop is the subnet's first address


@dataclass(frozen=True, slots=True)
class Port:
    """An interface plugged into an instance. `addresses` holds all of them, the primary one too, and the prefixes that
    are delegated to it, as CIDRs. `next_hop` is empty where the subnet's first address is it."""

    id: str
    mac: str
    instance_id: str
    device_index: int
    subnet_cidr: str
    vpc_cidr: str
    primary_address: str
    addresses: frozenset[str]
    next_hop: str = ""

    @property
    def device(self) -> str:
        """Name of the device in its instance, as the Nitro instances of a VPC have it: ens5, ens6, ..."""
        return f"ens{FIRST_DEVICE_NUMBER + self.device_index}"

    @property
    def router_device(self) -> str:
        """Name of the router's end. The kernel takes 15 characters; the tail of an id is its random part."""
        tail = self.id.removeprefix("eni-")[-14:]
        return "p" + (hashlib.sha256(self.id.encode()).hexdigest()[:14] if "/" in self.id else tail)

    @property
    def gateway(self) -> str:
        """The subnet's first address, unless the cloud has another."""
        return self.next_hop or str(ipaddress.ip_network(self.subnet_cidr)[1])

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.subnet_cidr).prefixlen

    @property
    def single_addresses(self) -> frozenset[str]:
        """Its addresses one by one, those of delegated prefixes too."""
        return frozenset(
            str(one) for each in self.addresses for one in (ipaddress.ip_network(each) if "/" in each else (each,))
        )

    @property
    def label(self) -> str:
        """All but the addresses: what cannot change while the device stays. The router's end carries it as alias."""
        fields = (short(self.id), self.mac, short(self.instance_id), self.device_index, self.subnet_cidr, self.vpc_cidr)
        return " ".join(map(str, (*fields, self.primary_address, self.next_hop or _FIRST)))


def short(resource_id: str) -> str:
    """An id as a label has it: an alias takes 255 characters, and Azure's ids are long."""
    for words, sign in _SIGNS:
        resource_id = resource_id.replace(words, sign)
    return resource_id


def long(text: str) -> str:
    """The id that was shortened."""
    for words, sign in _SIGNS:
        text = text.replace(sign, words)
    return text


@dataclass(frozen=True, slots=True)
class CloudState:
    """Everything plugged, by interface id, at one revision of the fake cloud."""

    revision: int
    ports: Mapping[str, Port]


@dataclass(frozen=True, slots=True)
class Difference:
    """Steps from one set of ports to another, in the order in which they must be taken."""

    unplug: Sequence[Port]
    plug: Sequence[Port]
    unroute: Sequence[str]
    # Address to interface id.
    route: Mapping[str, str]
    gateways: frozenset[str] = field(default_factory=frozenset)
    vpc_cidrs: frozenset[str] = field(default_factory=frozenset)

    def __bool__(self) -> bool:
        return bool(self.unplug or self.plug or self.unroute or self.route)


def read_state(document: Mapping[str, Any]) -> CloudState:
    """Reads the answer of GET /_admin/state. Interfaces on their way in or out are not plugged."""
    ports = {}
    for row in document["interfaces"]:
        if not row["instance_id"] or row["status"] != "in-use":
            continue
        addresses = list(row["addresses"])
        primary = row["primary_address"] if "primary_address" in row else addresses[0]
        ports[row["id"]] = Port(
            id=row["id"],
            mac=row["mac"].lower(),
            instance_id=row["instance_id"],
            device_index=int(row["device_index"]),
            subnet_cidr=row["subnet_cidr"],
            vpc_cidr=row["vpc_cidr"],
            primary_address=primary,
            addresses=frozenset([primary, *addresses, *row.get("prefixes", ())]),
            next_hop=row.get("gateway", ""),
        )
    return CloudState(int(document["revision"]), ports)


def read_label(label: str, addresses: frozenset[str]) -> Port:
    """The port whose `label` it is, delivering `addresses`."""
    short_id, mac, short_instance, device_index, subnet_cidr, vpc_cidr, primary_address, hop = label.split()
    identity, instance_id = long(short_id), long(short_instance)
    hop = "" if hop == _FIRST else hop
    return Port(identity, mac, instance_id, int(device_index), subnet_cidr, vpc_cidr, primary_address, addresses, hop)


def difference(actual: Mapping[str, Port], wanted: Mapping[str, Port]) -> Difference:
    """Compares two sets of ports. An address that moves between ports is routed anew, never unrouted in between."""
    unplug = [port for key, port in actual.items() if key not in wanted or wanted[key].label != port.label]
    gone = {port.id for port in unplug}
    plug = [port for key, port in wanted.items() if key not in actual or key in gone]
    routed = {address: key for key, port in actual.items() if key not in gone for address in port.addresses}
    owed = {address: key for key, port in wanted.items() for address in port.addresses}
    return Difference(
        unplug=unplug,
        plug=plug,
        # Routes of an unplugged device vanish with it.
        unroute=[address for address in routed if address not in owed],
        route={address: key for address, key in owed.items() if routed.get(address) != key},
        gateways=frozenset(port.gateway for port in wanted.values()),
        vpc_cidrs=frozenset(port.vpc_cidr for port in wanted.values()),
    )
