"""Which neighbours packets to other machines go by, and what is news about them. Pure."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from datapath.devices.observe import KernelRoute
from datapath.model import LOCAL_TABLE, ExternalDevice, NextHop
from datapath.routes.segments import Segments

NUD_INCOMPLETE, NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE, NUD_FAILED = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
_RESOLVED: Final = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT


@dataclass(frozen=True, slots=True)
class Neighbour:
    """:ivar mac: empty: not resolved. :ivar state: the kernel's NUD bits. :ivar gone: the kernel has forgotten it."""

    address: str
    link_index: int
    mac: str = ""
    state: int = 0
    protocol: int = 0
    managed: bool = False
    gone: bool = False

    @property
    def next_hop(self) -> NextHop:
        return NextHop(self.address, self.link_index)

    @property
    def resolved(self) -> str:
        """Its MAC if packets may be sent to it now."""
        return self.mac if self.state & _RESOLVED and not self.gone else ""


def next_hops(
    devices: Collection[ExternalDevice], routes: Collection[KernelRoute], nodes: Iterable[str] = ()
) -> frozenset[NextHop]:
    """
    :param nodes: addresses of other nodes: those on a segment of this node are next hops themselves, the others are
        reached by a gateway, which is one already.
    """
    indices = {one.index for one in devices if one.has_ethernet}
    own = {address for one in devices for address in (*one.addresses4, *one.addresses6)}
    found = {
        NextHop(one.gateway, one.link_index)
        for one in routes
        if one.gateway and one.link_index in indices and one.table != LOCAL_TABLE
    }
    segments = Segments(one for one in routes if one.table != LOCAL_TABLE and one.link_index in indices)
    for address in nodes:
        index, _ = segments.of(address)
        if index:
            found.add(NextHop(str(ip_address(address)), index))
    return frozenset(one for one in found if one.address not in own)


class LinkLayer:
    """Remembers each neighbour's MAC, and tells when one that was known is another's or none. Thread-safe.

    A neighbour's first resolution is no news: what was decided without it does not become wrong."""

    def __init__(self) -> None:
        self._macs: dict[NextHop, str] = {}
        self._lock = threading.Lock()

    def learn(self, all_now: Iterable[Neighbour]) -> frozenset[NextHop]:
        """Everything the kernel holds, after a start or lost events. Returns whose MAC has changed."""
        now = {one.next_hop: one.resolved for one in all_now if one.resolved}
        with self._lock:
            before, self._macs = self._macs, now
        return frozenset(hop for hop, mac in before.items() if now.get(hop) != mac)

    def hear(self, one: Neighbour) -> bool:
        """True if its MAC was known, and is another now or not known any more."""
        with self._lock:
            before = self._macs.get(one.next_hop, "")
            if one.resolved:
                self._macs[one.next_hop] = one.resolved
            elif one.gone or one.state & NUD_FAILED:
                self._macs.pop(one.next_hop, None)
            else:
                return False
        return bool(before) and before != one.resolved


__all__ = ["LinkLayer", "Neighbour", "next_hops"]
