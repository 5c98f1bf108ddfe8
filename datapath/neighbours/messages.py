"""Netlink requests for next hops."""

from __future__ import annotations

import errno
import socket
from typing import Final

from datapath import netlink
from datapath.model import PROTOCOL, NextHop
from datapath.netlink import Request, request

NTF_EXT_MANAGED: Final = 0x01  # of the extended flags
_NTF_USE, _NTF_EXT_LEARNED = 0x01, 0x10
_NUD_PROBE: Final = 0x10
_GONE: Final = (errno.ENOENT, errno.ENODEV)


def manage(hop: NextHop) -> Request:
    """The kernel resolves it now and again for ever. A kernel before 5.16 takes it for a plain entry, which it does not
    collect; then `refresh` does the rest."""
    attributes = [("NDA_DST", hop.address), ("NDA_PROTOCOL", PROTOCOL), ("NDA_FLAGS_EXT", NTF_EXT_MANAGED)]
    return _new(hop, attributes, flags=_NTF_EXT_LEARNED, what=f"keep {hop.address} resolved")


def resolve(hop: NextHop) -> Request:
    """Begins to resolve one that is not."""
    attributes = [("NDA_DST", hop.address), ("NDA_PROTOCOL", PROTOCOL)]
    return _new(hop, attributes, flags=_NTF_USE | _NTF_EXT_LEARNED, what=f"resolve {hop.address}")


def probe(hop: NextHop) -> Request:
    """Asks one that is resolved whether it is still there; its MAC is used meanwhile."""
    attributes = [("NDA_DST", hop.address), ("NDA_PROTOCOL", PROTOCOL)]
    return _new(hop, attributes, flags=_NTF_EXT_LEARNED, state=_NUD_PROBE, what=f"probe {hop.address}")


def forget(hop: NextHop) -> Request:
    fields = {"family": _family(hop), "ifindex": hop.link_index}
    what = f"stop keeping {hop.address}"
    return request(netlink.RTM_DELNEIGH, netlink.REQUEST, fields, [("NDA_DST", hop.address)], what=what, ignore=_GONE)


def _new(hop: NextHop, attributes: list[tuple[str, object]], *, flags: int, what: str, state: int = 0) -> Request:
    fields = {"family": _family(hop), "ifindex": hop.link_index, "flags": flags, "state": state}
    return request(netlink.RTM_NEWNEIGH, netlink.REPLACE, fields, attributes, what=what, ignore=_GONE)


def _family(hop: NextHop) -> int:
    return socket.AF_INET6 if ":" in hop.address else socket.AF_INET


__all__ = ["NTF_EXT_MANAGED", "forget", "manage", "probe", "resolve"]
