"""News of the node's network: one netlink socket on links, addresses, routes, rules and neighbours of both families.

It says which questions to ask again, not the answers: what counts is what the kernel holds when one looks. Pods' own
devices, addresses, routes and neighbours are no news, nor is what comes a second time unchanged, so a start of a pod
wakes nobody. Lost events (the kernel's ENOBUFS) mean that everything may have changed.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from datapath import netlink, observe
from datapath.model import HOST_PREFIX, MAIN_TABLE, OVERLAY_DEVICE, PROTOCOL, Link, NextHop
from datapath.neighbours.kernel import neighbour_of, neighbours
from datapath.neighbours.plan import LinkLayer
from datapath.netlink import NetlinkSocket, attributes_of, messages_of

# Links, neighbours, addresses, routes and rules of IPv4, and of IPv6.
_GROUPS: Final = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
_BUFFER_BYTES: Final = 8 << 20
_DATAGRAMS_A_TIME: Final = 256
_CLONED: Final = 0x200
# Up, running, lower layer up.
_STATE_FLAGS: Final = 0x1 | 0x40 | 0x10000
_LINKS: Final = (netlink.RTM_NEWLINK, netlink.RTM_DELLINK)
_ADDRESSES: Final = (netlink.RTM_NEWADDR, netlink.RTM_DELADDR)
_ROUTES: Final = (netlink.RTM_NEWROUTE, netlink.RTM_DELROUTE)
_RULES: Final = (netlink.RTM_NEWRULE, netlink.RTM_DELRULE)
_NEIGHBOURS: Final = (netlink.RTM_NEWNEIGH, netlink.RTM_DELNEIGH)


@dataclass(frozen=True, slots=True)
class Changes:
    """What may be different now. False if nothing is.

    :ivar devices: links or addresses: detect external devices again.
    :ivar routes: routes or rules of any table.
    :ivar next_hops: neighbours whose link-layer address was known and is another's now, or not known any more.
    :ivar lost: some news was lost; all else is set, next hops as far as a look at the kernel tells.
    """

    devices: bool = False
    routes: bool = False
    next_hops: frozenset[NextHop] = frozenset()
    lost: bool = False

    def __bool__(self) -> bool:
        return self.devices or self.routes or bool(self.next_hops) or self.lost

    def __or__(self, other: Changes) -> Changes:
        return Changes(
            self.devices or other.devices,
            self.routes or other.routes,
            self.next_hops | other.next_hops,
            self.lost or other.lost,
        )


class NetworkEvents:
    """Implements ports.NetworkEvents. Of the network namespace of the thread that makes it; used by one thread.

    Use `drain` when `fileno` is readable, or `wait`, or `follow`."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(_GROUPS, _BUFFER_BYTES)
        self._asking = NetlinkSocket()
        self._links: dict[int, tuple[Link, int]] = {}
        self._own: set[int] = set()
        self._addresses: dict[bytes, bytes] = {}
        self._link_layer = LinkLayer()
        self._look()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._asking.close()

    def __enter__(self) -> NetworkEvents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drain(self) -> Changes:
        """What has queued up, at most a few hundred messages; never blocks."""
        changes = Changes()
        for _ in range(_DATAGRAMS_A_TIME):
            try:
                data = self._socket.receive(wait=False)
            except BlockingIOError:
                break
            except OSError:
                changes |= Changes(devices=True, routes=True, next_hops=self._look(), lost=True)
                continue
            for kind, _, _, body in messages_of(data):
                changes |= self._heard(kind, body)
        return changes

    def wait(self, timeout_s: float, *, quiet_s: float = 0.05, longest_s: float = 0.5) -> Changes:
        """The next burst of news as one: ends when it has been quiet for `quiet_s`, or after `longest_s`.

        Empty if there is none within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        changes = Changes()
        while not changes and (left_s := deadline - time.monotonic()) > 0:
            if self._readable(left_s):
                changes = self.drain()
        end = time.monotonic() + longest_s
        while changes and time.monotonic() < end and self._readable(quiet_s):
            changes |= self.drain()
        return changes

    def follow(self, tell: Callable[[Changes], None], stop: threading.Event, *, quiet_s: float = 0.05) -> None:
        """Tells of each burst until `stop` is set, which is noticed within 0.2 s."""
        while not stop.is_set():
            if changes := self.wait(0.2, quiet_s=quiet_s):
                tell(changes)

    def _readable(self, within_s: float) -> bool:
        return bool(select.select([self._socket.fileno()], [], [], within_s)[0])

    def _look(self) -> frozenset[NextHop]:
        """What there is now, so that only what differs is news."""
        self._links.clear()
        self._addresses.clear()
        for fixed, attributes in self._asking.dump(netlink.RTM_GETLINK, {}):
            self._link(fixed, attributes, gone=False)
        return self._link_layer.learn(neighbours(self._asking))

    def _heard(self, kind: int, body: bytes) -> Changes:
        size = netlink.FIXED.get(kind & ~1)  # a DEL has the shape of its NEW
        if size is None:
            return Changes()
        fixed, attributes = body[:size], attributes_of(body[size:])
        gone = bool(kind & 1)
        if kind in _LINKS:
            return Changes(devices=self._link(fixed, attributes, gone=gone))
        if kind in _ADDRESSES:
            return Changes(devices=self._address(fixed, attributes, gone=gone))
        if kind in _ROUTES:
            return Changes(routes=self._route(fixed, attributes))
        if kind in _RULES:
            return Changes(routes=True)
        if kind in _NEIGHBOURS:
            one = neighbour_of(fixed, attributes, gone=gone)
            if one is not None and one.link_index not in self._own and self._link_layer.hear(one):
                return Changes(next_hops=frozenset((one.next_hop,)))
        return Changes()

    def _link(self, fixed: bytes, attributes: dict[int, bytes], *, gone: bool) -> bool:
        family, _, index, flags, _ = observe.IFINFO.unpack(fixed)
        if family or 3 not in attributes:  # of a bridge's port, or of IPv6's own settings: not the device itself
            return False
        link = observe.link_of(fixed, attributes)
        if link.name.startswith(HOST_PREFIX) and link.name != OVERLAY_DEVICE:
            (self._own.discard if gone else self._own.add)(index)
            return False
        known = self._links.pop(index, None)
        if gone:
            return True
        self._links[index] = (link, flags & _STATE_FLAGS)
        return known != self._links[index]

    def _address(self, fixed: bytes, attributes: dict[int, bytes], *, gone: bool) -> bool:
        if observe.IFADDR.unpack(fixed)[4] in self._own:
            return False
        # Lifetimes are told of again and again; flags say when one becomes usable or deprecated.
        key = fixed[:1] + fixed[4:] + attributes.get(2, attributes.get(1, b""))
        known = self._addresses.pop(key, None)
        if gone:
            return True
        self._addresses[key] = fixed[1:4] + attributes.get(8, b"")
        return known != self._addresses[key]

    def _route(self, fixed: bytes, attributes: dict[int, bytes]) -> bool:
        _, length, _, _, table, protocol, _, _, flags = observe.RTMSG.unpack(fixed)
        plain = 5 not in attributes and observe.number(attributes.get(6)) in (0, 1024)  # gateway, metric
        to_pod = protocol == PROTOCOL and table == MAIN_TABLE and length in (32, 128) and plain
        return not (flags & _CLONED or to_pod or observe.number(attributes.get(4)) in self._own)


__all__ = ["Changes", "NetworkEvents"]
