"""Next hops in the kernel: observes, diffs, applies. Addresses are resolved by the kernel, never by us.

Entries of administrators (permanent ones) are left alone: they need no keeping. One that the kernel has learnt by
itself is taken over with the MAC it has.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

from datapath import netlink
from datapath.model import HOST_PREFIX, PROTOCOL, NextHop
from datapath.neighbours import messages
from datapath.neighbours.plan import NUD_NOARP, NUD_PERMANENT, Neighbour
from datapath.netlink import NetlinkSocket, Request
from datapath.observe import NDMSG, address, links, number

_DST, _LLADDR, _PROTOCOL, _FLAGS_EXT = 1, 2, 12, 15


@dataclass(frozen=True, slots=True)
class NeighbourReport:
    """
    :ivar managed: the kernel keeps them fresh by itself; if not, call `refresh` twice a minute.
    :ivar added: taken under management.
    :ivar removed: given up.
    :ivar unresolved: next hops that have no MAC now.
    """

    managed: bool = True
    added: int = 0
    removed: int = 0
    unresolved: frozenset[NextHop] = frozenset()


class KernelNeighbours:
    """Implements ports.Neighbours. Thread-safe; reconciles run one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def reconcile(self, wanted: Collection[NextHop]) -> NeighbourReport:
        """Raises KernelRefused."""
        with self._lock, NetlinkSocket() as connection:
            have = {one.next_hop: one for one in neighbours(connection)}
            foreign = {hop for hop, one in have.items() if one.state & NUD_PERMANENT and one.protocol != PROTOCOL}
            ours = {hop for hop, one in have.items() if one.protocol == PROTOCOL and not one.state & NUD_PERMANENT}
            want = frozenset(wanted) - foreign
            fresh = sorted(want - ours)
            connection.run([messages.manage(hop) for hop in fresh])
            gone = sorted(ours - want)
            connection.run([messages.forget(hop) for hop in gone])
            now = {one.next_hop: one for one in neighbours(connection)}
            kept = [now[hop] for hop in want if hop in now]
            return NeighbourReport(
                managed=all(one.managed for one in kept),
                added=len(fresh),
                removed=len(gone),
                unresolved=frozenset(hop for hop in want if hop not in now or not now[hop].resolved),
            )

    def refresh(self, wanted: Collection[NextHop]) -> None:
        """What a kernel without managed neighbours does not do by itself; harmless on others. Raises KernelRefused."""
        with self._lock, NetlinkSocket() as connection:
            connection.run(refreshed(wanted, {one.next_hop: one for one in neighbours(connection)}))


def refreshed(wanted: Collection[NextHop], now: dict[NextHop, Neighbour]) -> list[Request]:
    requests = []
    for hop in sorted(wanted):
        one = now.get(hop)
        if one is None or not one.resolved:
            requests.append(messages.resolve(hop))
        elif not one.state & NUD_PERMANENT:
            requests.append(messages.probe(hop))
    return requests


def neighbours(connection: NetlinkSocket) -> list[Neighbour]:
    """All but those of pods, and those that nobody ever asks for (broadcast, multicast, loopback)."""
    own = {link.index for link in links(connection) if link.name.startswith(HOST_PREFIX)}
    found = (neighbour_of(fixed, attributes) for fixed, attributes in connection.dump(netlink.RTM_GETNEIGH, {}))
    return [one for one in found if one is not None and one.link_index not in own and not one.state & NUD_NOARP]


def neighbour_of(fixed: bytes, attributes: dict[int, bytes], *, gone: bool = False) -> Neighbour | None:
    """None for what is no neighbour of IPv4 or IPv6."""
    _, index, state, _, _ = NDMSG.unpack(fixed)
    destination = attributes.get(_DST, b"")
    if len(destination) not in (4, 16):
        return None
    return Neighbour(
        address=address(destination),
        link_index=index,
        mac=attributes.get(_LLADDR, b"").hex(":"),
        state=state,
        protocol=attributes.get(_PROTOCOL, b"\0")[0],
        managed=bool(number(attributes.get(_FLAGS_EXT)) & messages.NTF_EXT_MANAGED),
        gone=gone,
    )


__all__ = ["KernelNeighbours", "NeighbourReport", "neighbour_of", "neighbours"]
