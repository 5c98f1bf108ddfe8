"""Netlink requests for routes, rules, proxy neighbours and addresses of the cloud interfaces."""

from __future__ import annotations

import errno
import socket
from typing import Final

from datapath import netlink
from datapath.model import PROTOCOL, Link, LinkAddress, ProxyNeighbour, Route, Rule
from datapath.netlink import Request, request

_EXISTS: Final = (errno.EEXIST,)
_GONE: Final = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)
_TO_TABLE: Final = 1
_UNICAST, _UNREACHABLE = 1, 7
_ONLINK: Final = 4
_NTF_PROXY: Final = 0x08
_NODAD: Final = 0x02
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255


def up(link: Link) -> Request:
    fields = {"index": link.index, "flags": 1, "change": 1}
    return request(netlink.RTM_SETLINK, netlink.REQUEST, fields, [], what=f"bring {link.name} up")


def route(one: Route, *, add: bool) -> Request:
    where = f"{one.destination}/{one.prefix_length} in table {one.table}"
    fields = {
        "family": _family(one.destination),
        "dst_len": one.prefix_length,
        "table": one.table if one.table < 256 else 0,
        "proto": PROTOCOL,
        "type": _UNICAST if one.link_index else _UNREACHABLE,
        "scope": _SCOPE_UNIVERSE if one.gateway or not one.link_index else _SCOPE_LINK,
        "flags": _ONLINK if one.gateway else 0,
    }
    attributes: list[tuple[str, object]] = [("RTA_TABLE", one.table)]
    if one.prefix_length:
        attributes.append(("RTA_DST", one.destination))
    if one.link_index:
        attributes.append(("RTA_OIF", one.link_index))
    if one.gateway:
        attributes.append(("RTA_GATEWAY", one.gateway))
    if one.metric:
        attributes.append(("RTA_PRIORITY", one.metric))
    if one.source:
        attributes.append(("RTA_PREFSRC", one.source))
    if add:
        return request(netlink.RTM_NEWROUTE, netlink.REPLACE, fields, attributes, what=f"route {where}")
    fields["scope"] = _SCOPE_NOWHERE
    return request(
        netlink.RTM_DELROUTE, netlink.REQUEST, fields, attributes, what=f"remove route {where}", ignore=_GONE
    )


def rule(one: Rule, *, add: bool) -> Request:
    family, whole = (socket.AF_INET, 32) if one.family == 4 else (socket.AF_INET6, 128)
    fields = {"family": family, "src_len": whole if one.source else 0, "action": _TO_TABLE, "table": 0}
    attributes: list[tuple[str, object]] = [
        ("FRA_PRIORITY", one.priority),
        ("FRA_TABLE", one.table),
        ("FRA_PROTOCOL", PROTOCOL),
    ]
    if one.source:
        attributes.append(("FRA_SRC", one.source))
    if one.suppress_length >= 0:
        attributes.append(("FRA_SUPPRESS_PREFIXLEN", one.suppress_length))
    where = f"rule {one.priority} from {one.source or 'all'} lookup {one.table}"
    if add:
        return request(netlink.RTM_NEWRULE, netlink.CREATE, fields, attributes, what=f"add {where}", ignore=_EXISTS)
    return request(netlink.RTM_DELRULE, netlink.REQUEST, fields, attributes, what=f"remove {where}", ignore=_GONE)


def proxy(one: ProxyNeighbour, *, add: bool) -> Request:
    fields = {"family": _family(one.address), "ifindex": one.link_index, "flags": _NTF_PROXY}
    attributes = [("NDA_DST", one.address), ("NDA_PROTOCOL", PROTOCOL)]
    if add:
        what = f"answer for {one.address}"
        return request(netlink.RTM_NEWNEIGH, netlink.REPLACE, fields, attributes, what=what)
    what = f"stop answering for {one.address}"
    return request(netlink.RTM_DELNEIGH, netlink.REQUEST, fields, attributes, what=what, ignore=_GONE)


def address(one: LinkAddress, *, add: bool) -> Request:
    family = _family(one.address)
    whole, flags = (32, 0) if family == socket.AF_INET else (128, _NODAD)
    fields = {"family": family, "prefixlen": whole, "index": one.link_index, "flags": flags}
    attributes = [("IFA_LOCAL", one.address), ("IFA_ADDRESS", one.address), ("IFA_PROTO", PROTOCOL)]
    if add:
        what = f"set address {one.address}"
        return request(netlink.RTM_NEWADDR, netlink.CREATE, fields, attributes, what=what, ignore=_EXISTS)
    what = f"remove address {one.address}"
    return request(netlink.RTM_DELADDR, netlink.REQUEST, fields, attributes[:2], what=what, ignore=_GONE)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
