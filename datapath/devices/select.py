"""Which devices lead out of the node, as a pure function of links, routes and addresses.

A device does if it is up, is not one of those that stay inside (bridges, dummies, tunnels that carry frames, ends of
pods' pairs), and a route of any table goes by it to somewhere global. Of bonds, VLANs and VRFs it is the device that
carries the routes: the members of a bond have none, a VLAN's parent may have its own. An operator's patterns replace
all of this, but for what is ours.

Which address the node speaks from by a device follows the kernel's own rules: the default route's source if it says
one, else the first address of the gateway's network, else the first of the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_interface
from typing import Final

from datapath.devices.observe import KernelAddress, KernelRoute
from datapath.model import HOST_PREFIX, LOCAL_TABLE, MAIN_TABLE, ExternalDevice, Link

_ETHERNET, _LOOPBACK = 1, 772
_INSIDE: Final = frozenset(
    {"bridge", "openvswitch", "dummy", "ifb", "nlmon", "vrf", "vxlan", "geneve", "gretap", "ip6gretap", "bareudp",
     "netkit", "vcan"}
)  # fmt: skip
# Pairs and taps have their other end in a container or a virtual machine of this node, or are a lab's cable: the latter
# carry more than the route to one host.
_PERHAPS_INSIDE: Final = frozenset({"veth", "tun"})
_TAKES_MEMBERS: Final = frozenset({"bridge", "openvswitch", "bond", "team"})


@dataclass(frozen=True, slots=True)
class DeviceSelection:
    """
    :ivar devices: by index.
    :ivar passed_over: why other devices are none, in a few words by their name; pods' own are not told of.
    """

    devices: tuple[ExternalDevice, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)


def select(
    links: Sequence[Link],
    routes: Sequence[KernelRoute],
    addresses: Sequence[KernelAddress],
    patterns: Sequence[str] = (),
) -> DeviceSelection:
    """:param patterns: names with wildcards (`eth*`); devices they match are external and no others. None: detect."""
    by_index = {link.index: link for link in links}
    routed: dict[int, list[KernelRoute]] = {}
    for route in routes:
        if route.table != LOCAL_TABLE and _is_global(route):
            routed.setdefault(route.link_index, []).append(route)
    chosen, passed_over = [], {}
    for link in sorted(links, key=lambda one: one.index):
        if link.name.startswith(HOST_PREFIX) or link.hardware == _LOOPBACK:
            continue
        if patterns:
            named = any(fnmatchcase(link.name, pattern) for pattern in patterns)
            why = "" if named else "its name is not among those that are set"
        else:
            why = _inside(link, by_index, routed.get(link.index, []))
        if why:
            passed_over[link.name] = why
        else:
            chosen.append(_external(link, routed.get(link.index, []), addresses))
    return DeviceSelection(tuple(chosen), passed_over)


def _inside(link: Link, by_index: Mapping[int, Link], routes: Sequence[KernelRoute]) -> str:
    """Why it does not lead out; empty if it does."""
    master = by_index.get(link.master)
    if link.kind in _INSIDE:
        return f"a {link.kind} stays inside of the node"
    if master is not None and master.kind in _TAKES_MEMBERS:
        return f"it is a member of {master.name}"
    if not link.up:
        return "it is down"
    if not routes:
        return "no route to anywhere global goes by it"
    if link.kind in _PERHAPS_INSIDE and link.hardware == _ETHERNET and all(_to_one_host(one) for one in routes):
        return f"its routes lead to single hosts, as a {link.kind} of a container has them"
    return ""


def _to_one_host(route: KernelRoute) -> bool:
    return not route.gateway and route.prefix_length == ip_address(route.destination).max_prefixlen


def _is_global(route: KernelRoute) -> bool:
    if not route.prefix_length:
        return True
    first = ip_address(route.destination)
    return not (first.is_link_local or first.is_multicast or first.is_loopback or first.is_unspecified)


def _external(link: Link, routes: Sequence[KernelRoute], addresses: Sequence[KernelAddress]) -> ExternalDevice:
    own = [one for one in addresses if one.link_index == link.index]
    own4 = sorted((one for one in own if ":" not in one.address), key=lambda one: one.secondary)
    own6 = sorted((one for one in own if ":" in one.address), key=_preference6)
    return ExternalDevice(
        name=link.name,
        index=link.index,
        mac=link.mac if link.hardware == _ETHERNET else "",
        mtu=link.mtu,
        kind=link.kind,
        has_ethernet=link.hardware == _ETHERNET,
        addresses4=tuple(one.address for one in own4),
        addresses6=tuple(one.address for one in own6),
        masquerade4=_source(own4, [one for one in routes if ":" not in one.destination], 4),
        masquerade6=_source(own6, [one for one in routes if ":" in one.destination], 6),
    )


def _preference6(one: KernelAddress) -> tuple[bool, bool, bool]:
    """As RFC 6724 has it for a destination in the world, but temporary addresses last: connections outlive them."""
    return one.deprecated, ip_address(one.address).is_private, one.secondary


def _source(own: Sequence[KernelAddress], routes: Sequence[KernelRoute], version: int) -> str:
    defaults = [one for one in routes if not one.prefix_length]
    for route in sorted(defaults, key=lambda one: (one.table != MAIN_TABLE, one.metric)):
        if route.source:
            return route.source
        if version == 4 and route.gateway:
            near = [one for one in own if not one.secondary and _covers(one, route.gateway)]
            if near:
                return near[0].address
        break
    return own[0].address if own else ""


def _covers(one: KernelAddress, gateway: str) -> bool:
    address = ip_address(gateway)
    network = ip_interface(f"{one.address}/{one.prefix_length}").network
    return address.version == network.version and address in network


__all__ = ["DeviceSelection", "select"]
