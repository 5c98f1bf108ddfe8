"""What the kernel holds, as facts of model.py. Reads only."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from datapath import netlink
from datapath.model import PROTOCOL, Link, LinkAddress, ProxyNeighbour, Route, Rule
from datapath.netlink import NetlinkSocket, attributes_of

_IFINFO: Final = struct.Struct("=BxHiII")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")  # family, lengths, tos, table, protocol, scope, type, flags
_IFADDR: Final = struct.Struct("=BBBBi")
_NDMSG: Final = struct.Struct("=BxxxiHBB")
_NTF_PROXY: Final = 0x08
_UNREACHABLE: Final = 7
_MAIN: Final = 254
_V4: Final = {"family": socket.AF_INET}
_ANY_SCOPE_BELOW_HOST: Final = 254

PodRoute = tuple[str, int]  # address, link index


def links(connection: NetlinkSocket) -> list[Link]:
    found = []
    for fixed, attributes in connection.dump(netlink.RTM_GETLINK, {}):
        _, _, index, flags, _ = _IFINFO.unpack(fixed)
        info = attributes_of(attributes.get(18, b""))
        found.append(
            Link(
                index=index,
                name=_text(attributes[3]),
                mac=attributes.get(1, b"").hex(":"),
                up=bool(flags & 1),
                mtu=_number(attributes.get(4)),
                kind=_text(info.get(1, b"")),
                label=_text(attributes.get(20, b"")),
            )
        )
    return found


def routes(connection: NetlinkSocket) -> tuple[frozenset[Route], frozenset[PodRoute]]:
    """Our routes but for those to pods, and those to pods."""
    ours, pods = set(), set()
    for fixed, attributes in connection.dump(netlink.RTM_GETROUTE, {**_V4, "proto": PROTOCOL}):
        _, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack(fixed)
        if protocol != PROTOCOL:
            continue
        table = _number(attributes.get(15)) or table
        destination = _address(attributes.get(1)) or "0.0.0.0"  # noqa: S104  a route's destination, nothing is bound
        link_index = 0 if kind == _UNREACHABLE else _number(attributes.get(4))
        if table == _MAIN and link_index:
            pods.add((destination, link_index))
        else:
            gateway = _address(attributes.get(5))
            ours.add(Route(destination, length, table, link_index, gateway, _number(attributes.get(6))))
    return frozenset(ours), frozenset(pods)


def rules(connection: NetlinkSocket) -> frozenset[Rule]:
    found = set()
    for _, attributes in connection.dump(netlink.RTM_GETRULE, _V4):
        if attributes.get(21) == bytes([PROTOCOL]):
            length = struct.unpack("=i", attributes[14])[0] if 14 in attributes else -1
            found.add(
                Rule(_number(attributes.get(6)), _number(attributes.get(15)), _address(attributes.get(2)), length)
            )
    return frozenset(found)


def addresses(connection: NetlinkSocket) -> Iterator[tuple[LinkAddress, bool, bool]]:
    """Every IPv4 address of the namespace; whether we put it there; whether it may be spoken from to others."""
    for fixed, attributes in connection.dump(netlink.RTM_GETADDR, _V4):
        _, _, _, scope, index = _IFADDR.unpack(fixed)
        ours = attributes.get(11) == bytes([PROTOCOL])
        yield LinkAddress(_address(attributes.get(2)), index), ours, scope < _ANY_SCOPE_BELOW_HOST


def proxies(connection: NetlinkSocket) -> frozenset[ProxyNeighbour]:
    found = set()
    for fixed, attributes in connection.dump(netlink.RTM_GETNEIGH, {**_V4, "flags": _NTF_PROXY}):
        if attributes.get(12) == bytes([PROTOCOL]):
            _, index, _, _, _ = _NDMSG.unpack(fixed)
            found.add(ProxyNeighbour(_address(attributes.get(1)), index))
    return frozenset(found)


def _number(data: bytes | None) -> int:
    return 0 if data is None else int(struct.unpack_from("=I", data)[0])


def _address(data: bytes | None) -> str:
    return "" if data is None else socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
