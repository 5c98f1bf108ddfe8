"""Netlink requests for one endpoint.

    pod: eth0 <address>/32 ── veth ── plm... :node
         169.254.1.1 at HOST_MAC (permanent neighbour)      <address>/32 dev plm..., at the pod's MAC (permanent)
         default via 169.254.1.1

IPv6 is the same with /128 and the gateway fe80::506c:4d01; a pod has either or both, all in the same system calls. Its
address is used at once (nodad): nobody else is on the link, and the node says whose it is.

No address sits on the host's end and nobody asks by ARP, so there is nothing to time out or to spoof. The pair is
created with its far end already in the pod's namespace: moving a device between namespaces costs the kernel two grace
periods (16 ms), creating it in place 0.5 ms. That is why no pairs are kept ready.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from datapath import netlink
from datapath.model import HOST_MAC, MAIN_TABLE, POD_GATEWAY, POD_GATEWAY6, PROTOCOL, Endpoint
from datapath.netlink import Request, request

_UP: Final = {"flags": 1, "change": 1}
_PERMANENT: Final = 0x80
_NODAD: Final = 0x02
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_UNICAST: Final = 1
_ONLINK: Final = 4


def create_pair(endpoint: Endpoint, netns_descriptor: int) -> Request:
    """Both ends at once, with their final names, MACs and MTU. The node's end is up; a peer cannot be at its birth."""
    mtu = [("IFLA_MTU", endpoint.mtu)] if endpoint.mtu else []
    peer = {
        "attrs": [
            ("IFLA_IFNAME", endpoint.device),
            ("IFLA_ADDRESS", endpoint.mac),
            ("IFLA_NET_NS_FD", netns_descriptor),
            *mtu,
        ],
    }
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    attributes = [
        ("IFLA_IFNAME", endpoint.host_device),
        ("IFLA_ADDRESS", HOST_MAC),
        *mtu,
        ("IFLA_LINKINFO", info),
    ]
    what = f"create the pair {endpoint.host_device} - {endpoint.device}"
    return request(netlink.RTM_NEWLINK, netlink.CREATE, _UP, attributes, what=what)


def pod_side(endpoint: Endpoint, link_index: int) -> list[Request]:
    """Up, addresses, gateways and default routes; to be sent from the pod's namespace."""
    up = request(
        netlink.RTM_SETLINK, netlink.REQUEST, {"index": link_index, **_UP}, [], what=f"bring {endpoint.device} up"
    )
    requests = [up]
    for address in endpoint.addresses:
        family, whole = _family(address)
        gateway = POD_GATEWAY if family == socket.AF_INET else POD_GATEWAY6
        flags = 0 if family == socket.AF_INET else _NODAD
        requests += [
            request(
                netlink.RTM_NEWADDR,
                netlink.REPLACE,
                {"family": family, "prefixlen": whole, "index": link_index, "flags": flags},
                [("IFA_LOCAL", address), ("IFA_ADDRESS", address)],
                what=f"give {endpoint.device} the address {address}",
            ),
            _neighbour(gateway, HOST_MAC, link_index, f"tell the pod where {gateway} is"),
            _route(family, gateway, whole, link_index, scope=_SCOPE_LINK),
            _route(family, "", 0, link_index, gateway=gateway),
        ]
    return requests


def host_side(addresses: Sequence[str], mac: str, link_index: int, host_device: str) -> list[Request]:
    """The way to the pod; to be sent from the node's namespace."""
    requests = []
    for address in addresses:
        family, whole = _family(address)
        what = f"route {address} to {host_device}"
        requests += [
            _neighbour(address, mac, link_index, f"tell the node where {address} is"),
            _route(family, address, whole, link_index, scope=_SCOPE_LINK, what=what),
        ]
    return requests


def alias(host_device: str, text: str) -> Request:
    """Writes on the device whose it is, for people and for a daemon that lost its journal."""
    attributes = [("IFLA_IFNAME", host_device), ("IFLA_IFALIAS", text.encode()[:255].decode(errors="ignore"))]
    return request(netlink.RTM_SETLINK, netlink.REQUEST, {}, attributes, what=f"label {host_device}")


def delete_pair(host_device: str) -> Request:
    return request(
        netlink.RTM_DELLINK,
        netlink.REQUEST,
        {},
        [("IFLA_IFNAME", host_device)],
        what=f"remove {host_device}",
        ignore=(errno.ENODEV,),
    )


def into_group(host_device: str, group: int) -> Request:
    return request(
        netlink.RTM_SETLINK,
        netlink.REQUEST,
        {},
        [("IFLA_IFNAME", host_device), ("IFLA_GROUP", group)],
        what=f"group {host_device}",
        ignore=(errno.ENODEV,),
    )


def delete_group(group: int) -> Request:
    attributes = [("IFLA_GROUP", group)]
    ignore = (errno.ENODEV,)
    return request(netlink.RTM_DELLINK, netlink.REQUEST, {}, attributes, what="remove pairs", ignore=ignore)


def _family(address: str) -> tuple[int, int]:
    """Family, and the prefix length of one address."""
    return (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)


def _neighbour(address: str, mac: str, link_index: int, what: str) -> Request:
    fields = {"family": _family(address)[0], "ifindex": link_index, "state": _PERMANENT}
    return request(
        netlink.RTM_NEWNEIGH, netlink.REPLACE, fields, [("NDA_DST", address), ("NDA_LLADDR", mac)], what=what
    )


def _route(
    family: int,
    destination: str,
    length: int,
    link_index: int,
    *,
    gateway: str = "",
    scope: int = _SCOPE_UNIVERSE,
    what: str = "",
) -> Request:
    fields = {
        "family": family,
        "dst_len": length,
        "table": MAIN_TABLE,
        "proto": PROTOCOL,
        "scope": scope,
        "type": _UNICAST,
        "flags": _ONLINK if gateway else 0,
    }
    attributes: list[tuple[str, object]] = [("RTA_OIF", link_index)]
    if destination:
        attributes.append(("RTA_DST", destination))
    if gateway:
        attributes.append(("RTA_GATEWAY", gateway))
    if not what:
        # A pod's second interface leaves the first one's routes alone.
        what = f"route {destination or 'everything'} in the pod"
        ignore = (errno.EEXIST,)
        return request(netlink.RTM_NEWROUTE, netlink.CREATE, fields, attributes, what=what, ignore=ignore)
    return request(netlink.RTM_NEWROUTE, netlink.REPLACE, fields, attributes, what=what)


__all__ = ["alias", "create_pair", "delete_group", "delete_pair", "host_side", "into_group", "pod_side"]
