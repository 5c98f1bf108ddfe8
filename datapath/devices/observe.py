"""Every route and address of the kernel, whoever set it, as facts. Reads only."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from datapath import netlink
from datapath.netlink import NetlinkSocket, attributes_of
from datapath.observe import ANY, FAMILIES, IFADDR, RTMSG, address, number

_NEXT_HOP: Final = struct.Struct("=HBBi")  # length, flags, weight, link index; attributes follow
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 6, 7, 9, 15, 18
_UNICAST: Final = 1
_SECONDARY, _DAD_FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x08, 0x20, 0x40
_HOST_SCOPE, _LINK_SCOPE = 254, 253


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A unicast route; one that has several next hops is told once for each.

    :ivar gateway: empty: on the link.
    :ivar protocol: the kernel's number of who set it.
    :ivar source: what the node itself speaks from by this route; empty: not said.
    """

    destination: str
    prefix_length: int
    table: int
    link_index: int
    gateway: str = ""
    protocol: int = 0
    metric: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class KernelAddress:
    """An address that others may send to, in the kernel's order.

    :ivar secondary: IPv4: of a network that another address is the first of; IPv6: temporary.
    :ivar deprecated: not to be used for new connections.
    """

    address: str
    prefix_length: int
    link_index: int
    secondary: bool = False
    deprecated: bool = False


def kernel_routes(connection: NetlinkSocket) -> list[KernelRoute]:
    """Of all tables and both families."""
    found: list[KernelRoute] = []
    for family in FAMILIES:
        for fixed, attributes in connection.dump(netlink.RTM_GETROUTE, {"family": family}):
            found += routes_of(fixed, attributes)
    return found


def routes_of(fixed: bytes, attributes: dict[int, bytes]) -> Iterator[KernelRoute]:
    family, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack(fixed)
    if kind != _UNICAST or family not in ANY:
        return
    destination = address(attributes.get(_DST)) or ANY[family]
    table = number(attributes.get(_TABLE)) or table
    metric, source = number(attributes.get(_PRIORITY)), address(attributes.get(_PREFSRC))
    hops = [(number(attributes.get(_OIF)), attributes)] if _OIF in attributes else []
    hops += _several(attributes.get(_MULTIPATH, b""))
    for index, details in hops:
        yield KernelRoute(destination, length, table, index, _gateway(details), protocol, metric, source)


def _several(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    position = 0
    while position + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, position)
        if length < _NEXT_HOP.size:
            return
        yield index, attributes_of(data[position + _NEXT_HOP.size : position + length])
        position += (length + 3) & ~3


def _gateway(attributes: dict[int, bytes]) -> str:
    """Of IPv4 routes the gateway may be an IPv6 one."""
    return address(attributes.get(_GATEWAY)) or address(attributes[_VIA][2:] if _VIA in attributes else None)


def kernel_addresses(connection: NetlinkSocket) -> list[KernelAddress]:
    """Those that are in use and reach beyond their link."""
    found = []
    for family in FAMILIES:
        below = _HOST_SCOPE if family == socket.AF_INET else _LINK_SCOPE
        for fixed, attributes in connection.dump(netlink.RTM_GETADDR, {"family": family}):
            _, length, flags, scope, index = IFADDR.unpack(fixed)
            flags = number(attributes.get(8)) or flags
            if scope < below and not flags & (_TENTATIVE | _DAD_FAILED):
                text = address(attributes.get(2, attributes.get(1)))
                found.append(KernelAddress(text, length, index, bool(flags & _SECONDARY), bool(flags & _DEPRECATED)))
    return found


__all__ = ["KernelAddress", "KernelRoute", "kernel_addresses", "kernel_routes", "routes_of"]
