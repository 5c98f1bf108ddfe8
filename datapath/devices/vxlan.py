"""The overlay device: VXLAN between nodes, of which each packet says by itself where it goes (collect metadata).

Its MAC is the same on every node and it asks for nobody's (NOARP), so whatever the node's stack sends into it bears the
MAC that the other end takes for its own. It has no address, not even a link-local one, and learns nothing.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from datapath import netlink, observe, sysctls
from datapath.errors import KernelRefused, NotWired
from datapath.model import OVERLAY_DEVICE, OVERLAY_MAC
from datapath.netlink import NetlinkSocket, Request, attributes_of, request

DEFAULT_PORT: Final = 8472
# Outer Ethernet, IP, UDP and VXLAN headers, in bytes, by family of the underlay.
OVERHEAD: Final = {4: 50, 6: 70}
_LEAST_MTU: Final = 576
_UP, _NOARP = 0x1, 0x80
_NO_LINK_LOCAL: Final = 1
_PORT, _COLLECT_METADATA, _LEARNING, _ZERO_CSUM6_RX = 15, 25, 7, 20


class Done(StrEnum):
    KEPT = "kept"
    CREATED = "created"
    CHANGED = "changed"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Overlay:
    """:ivar mtu: bytes. :ivar port: UDP. :ivar done: what had to be done."""

    index: int
    mtu: int
    port: int
    done: Done


@dataclass(frozen=True, slots=True)
class _Seen:
    index: int
    right: bool
    mtu: int
    flags: int


class KernelOverlay:
    """Implements ports.Overlay. Thread-safe: each call opens its own socket."""

    def ensure(self, *, underlay_mtu: int, port: int = DEFAULT_PORT, underlay_family: int = 4) -> Overlay:
        """The device as it should be: a right one is kept, one of another port or kind is replaced.

        Raises KernelRefused, NotWired for an underlay that is too small.

        :param underlay_mtu: bytes; the smallest of the devices that lead to other nodes.
        :param underlay_family: of the nodes' addresses, 4 or 6.
        """
        mtu = underlay_mtu - OVERHEAD[underlay_family]
        if mtu < _LEAST_MTU:
            raise NotWired(f"an underlay of {underlay_mtu} bytes leaves {mtu} to the overlay, which is too few")
        with NetlinkSocket() as connection:
            seen = _seen(connection, port)
            if seen is not None and seen.right:
                changed = seen.mtu != mtu or seen.flags & (_UP | _NOARP) != _UP | _NOARP
                if changed:
                    connection.run([_changed(seen.index, mtu)])
                return Overlay(seen.index, mtu, port, Done.CHANGED if changed else Done.KEPT)
            if seen is not None:
                connection.run([_removed()])
            _create(connection, mtu, port)
            made = _seen(connection, port)
            if made is None or not made.right:
                raise NotWired(f"{OVERLAY_DEVICE} was changed by somebody else while it was made")
            return Overlay(made.index, mtu, port, Done.CREATED if seen is None else Done.REPLACED)

    def remove(self) -> bool:
        """False: it was not there."""
        with NetlinkSocket() as connection:
            there = any(link.name == OVERLAY_DEVICE for link in observe.links(connection))
            connection.run([_removed()])
            return there


def _seen(connection: NetlinkSocket, port: int) -> _Seen | None:
    for fixed, attributes in connection.dump(netlink.RTM_GETLINK, {}):
        link = observe.link_of(fixed, attributes)
        if link.name != OVERLAY_DEVICE:
            continue
        data = attributes_of(attributes_of(attributes.get(18, b"")).get(2, b""))
        right = (
            link.kind == "vxlan"
            and link.mac == OVERLAY_MAC
            and data.get(_COLLECT_METADATA, b"\0")[0] == 1
            and data.get(_LEARNING, b"\1")[0] == 0
            and data.get(_ZERO_CSUM6_RX, b"\0")[0] == 1
            and struct.unpack("!H", data.get(_PORT, b"\0\0"))[0] == port
        )
        return _Seen(link.index, right, link.mtu, observe.IFINFO.unpack(fixed)[3])
    return None


def _create(connection: NetlinkSocket, mtu: int, port: int) -> None:
    data = [
        ("IFLA_VXLAN_COLLECT_METADATA", 1),
        ("IFLA_VXLAN_PORT", port),
        ("IFLA_VXLAN_LEARNING", 0),
        ("IFLA_VXLAN_UDP_ZERO_CSUM6_TX", 1),
        ("IFLA_VXLAN_UDP_ZERO_CSUM6_RX", 1),
    ]
    attributes: list[tuple[str, object]] = [
        ("IFLA_IFNAME", OVERLAY_DEVICE),
        ("IFLA_ADDRESS", OVERLAY_MAC),
        ("IFLA_MTU", mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]}),
    ]
    create = request(netlink.RTM_NEWLINK, netlink.CREATE, {}, attributes, what=f"create {OVERLAY_DEVICE}")
    # Before it is up, or the kernel has made the link-local address by then.
    family = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _NO_LINK_LOCAL)]})]}
    quiet = request(
        netlink.RTM_SETLINK,
        netlink.REQUEST,
        {},
        [("IFLA_IFNAME", OVERLAY_DEVICE), ("IFLA_AF_SPEC", family)],
        what=f"keep {OVERLAY_DEVICE} without link-local address",
        ignore=(errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL),
    )
    up = request(
        netlink.RTM_SETLINK,
        netlink.REQUEST,
        {"flags": _UP | _NOARP, "change": _UP | _NOARP},
        [("IFLA_IFNAME", OVERLAY_DEVICE)],
        what=f"bring {OVERLAY_DEVICE} up on UDP port {port}",
    )
    try:
        connection.run([create, quiet])
        sysctls.ignore_routers6(OVERLAY_DEVICE)
        connection.run([up])
    except KernelRefused as refusal:
        connection.run([_removed()])
        if refusal.errno in (errno.EADDRINUSE, errno.EEXIST):
            refusal.remedy = f"something else has UDP port {port} (another overlay?): stop it, or set another port"
        raise


def _changed(index: int, mtu: int) -> Request:
    fields = {"index": index, "flags": _UP | _NOARP, "change": _UP | _NOARP}
    return request(netlink.RTM_SETLINK, netlink.REQUEST, fields, [("IFLA_MTU", mtu)], what=f"change {OVERLAY_DEVICE}")


def _removed() -> Request:
    what, ignore = f"remove {OVERLAY_DEVICE}", (errno.ENODEV,)
    return request(
        netlink.RTM_DELLINK, netlink.REQUEST, {}, [("IFLA_IFNAME", OVERLAY_DEVICE)], what=what, ignore=ignore
    )


__all__ = ["DEFAULT_PORT", "OVERHEAD", "Done", "KernelOverlay", "Overlay"]
