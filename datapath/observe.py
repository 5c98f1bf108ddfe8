"""What the kernel holds of ours, as facts of model.py. Reads only; devices/observe.py reads what is others' too."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from datapath import netlink
from datapath.model import MAIN_TABLE, PROTOCOL, Link, LinkAddress, ProxyNeighbour, Route, Rule
from datapath.netlink import NetlinkSocket, attributes_of

IFINFO: Final = struct.Struct("=BxHiII")  # family, hardware, index, flags, change
RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type, flags
IFADDR: Final = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
NDMSG: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NTF_PROXY: Final = 0x08
_UNREACHABLE: Final = 7
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
ANY: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104  destinations of routes, nothing is bound
# What the kernel makes of no metric at all.
_DEFAULT_METRIC: Final = {socket.AF_INET: 0, socket.AF_INET6: 1024}
_ANY_SCOPE_BELOW_HOST: Final = 254
_LINK_SCOPE: Final = 253

PodRoute = tuple[str, int]  # address, link index


def links(connection: NetlinkSocket) -> list[Link]:
    return [link_of(fixed, attributes) for fixed, attributes in connection.dump(netlink.RTM_GETLINK, {})]


def link_of(fixed: bytes, attributes: dict[int, bytes]) -> Link:
    _, hardware, index, flags, _ = IFINFO.unpack(fixed)
    info = attributes_of(attributes.get(18, b""))
    return Link(
        index=index,
        name=text(attributes[3]),
        mac=attributes.get(1, b"").hex(":"),
        up=bool(flags & 1),
        mtu=number(attributes.get(4)),
        kind=text(info.get(1, b"")),
        label=text(attributes.get(20, b"")),
        hardware=hardware,
        master=number(attributes.get(10)),
    )


def all_routes(connection: NetlinkSocket) -> frozenset[Route]:
    """Every route of ours."""
    found = set()
    for family in FAMILIES:
        for fixed, attributes in connection.dump(netlink.RTM_GETROUTE, {"family": family, "proto": PROTOCOL}):
            _, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack(fixed)
            if protocol != PROTOCOL:
                continue
            metric = number(attributes.get(6))
            found.add(
                Route(
                    destination=address(attributes.get(1)) or ANY[family],
                    prefix_length=length,
                    table=number(attributes.get(15)) or table,
                    link_index=0 if kind == _UNREACHABLE else number(attributes.get(4)),
                    gateway=address(attributes.get(5)),
                    metric=0 if metric == _DEFAULT_METRIC[family] else metric,
                    source=address(attributes.get(7)),
                )
            )
    return frozenset(found)


def routes(connection: NetlinkSocket) -> tuple[frozenset[Route], frozenset[PodRoute]]:
    """Our routes but for those to pods, and those to pods."""
    ours, pods = set(), set()
    for one in all_routes(connection):
        if one.table == MAIN_TABLE and one.link_index and not one.metric:
            pods.add((one.destination, one.link_index))
        else:
            ours.add(one)
    return frozenset(ours), frozenset(pods)


def rules(connection: NetlinkSocket) -> frozenset[Rule]:
    found = set()
    for family in FAMILIES:
        for _, attributes in connection.dump(netlink.RTM_GETRULE, {"family": family}):
            if attributes.get(21) != bytes([PROTOCOL]):
                continue
            length = struct.unpack("=i", attributes[14])[0] if 14 in attributes else -1
            priority, table, source = number(attributes.get(6)), number(attributes.get(15)), address(attributes.get(2))
            found.add(Rule(priority, table, source, length, 4 if family == socket.AF_INET else 6))
    return frozenset(found)


def addresses(connection: NetlinkSocket) -> Iterator[tuple[LinkAddress, bool, bool]]:
    """Every address of the namespace; whether we put it there; whether it may be spoken from to others."""
    for family in FAMILIES:
        # IPv6 addresses of one link are no way to name a node.
        below = _ANY_SCOPE_BELOW_HOST if family == socket.AF_INET else _LINK_SCOPE
        for fixed, attributes in connection.dump(netlink.RTM_GETADDR, {"family": family}):
            _, _, _, scope, index = IFADDR.unpack(fixed)
            ours = attributes.get(11) == bytes([PROTOCOL])
            # IPv4 on a link between two has its own end in the one, IPv6 has the other attribute only.
            yield LinkAddress(address(attributes.get(2, attributes.get(1))), index), ours, scope < below


def proxies(connection: NetlinkSocket) -> frozenset[ProxyNeighbour]:
    found = set()
    for family in FAMILIES:
        for fixed, attributes in connection.dump(netlink.RTM_GETNEIGH, {"family": family, "flags": _NTF_PROXY}):
            if attributes.get(12) == bytes([PROTOCOL]):
                _, index, _, _, _ = NDMSG.unpack(fixed)
                found.add(ProxyNeighbour(address(attributes.get(1)), index))
    return frozenset(found)


def number(data: bytes | None) -> int:
    return 0 if data is None else int(struct.unpack_from("=I", data)[0])


def address(data: bytes | None) -> str:
    return "" if data is None else socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
