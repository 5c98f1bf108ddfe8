"""Cloud interfaces, tables and rules in the kernel: observes, diffs, applies."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from ipaddress import ip_address
from typing import Final

from datapath import observe, sysctls
from datapath.model import (
    HOST_PREFIX,
    MAIN_TABLE,
    NODE_ROUTE_METRIC,
    CloudLink,
    LinkAddress,
    Route,
    RoutingReport,
    RoutingState,
)
from datapath.netlink import NetlinkSocket, Request
from datapath.routes import messages, plan

_RTMGRP_LINK: Final = 1
_OWN_NAME: Final = b"\x03\x00" + HOST_PREFIX.encode()  # attribute IFLA_IFNAME of a pod's host device


class DeviceEvents:
    """Tells of devices that come, go or change. Readable (`fileno`) when there may be something; never blocks."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(groups=_RTMGRP_LINK)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> bool:
        """Forgets what has queued up. True if some of it was not about pods' own devices."""
        relevant = False
        while True:
            try:
                data = self._socket.receive(wait=False)
            except BlockingIOError:
                return relevant
            except OSError:  # ENOBUFS: events were lost, so anything may have happened
                relevant = True
                continue
            relevant = relevant or _OWN_NAME not in data

    def close(self) -> None:
        self._socket.close()


class KernelRouting:
    """Implements ports.Routing. Thread-safe; reconciles run one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def reconcile(self, links: Collection[CloudLink], ranges: Collection[str] = ()) -> RoutingReport:
        with self._lock, NetlinkSocket() as connection:
            found, problems = plan.match(links, observe.links(connection))
            want = plan.desired(links, found, ranges)
            have, foreign = _observed(connection)
            # An address that somebody else has set already is as good, and stays his.
            want = RoutingState(want.routes, want.rules, want.proxies, want.addresses - foreign)
            requests = _additions(want, have)
            requests[:0] = [messages.up(link) for link in found.values() if not link.up]
            removals = _removals(want, have)
            connection.run(requests + removals)
            names = {link.index: link.name for link in found.values()}
            for index in {one.link_index for one in want.proxies if ":" in one.address}:
                sysctls.answer_for_others6(names[index])
            return RoutingReport(
                devices={name: link.name for name, link in found.items()},
                mtus={name: link.mtu for name, link in found.items()},
                problems=problems,
                added=len(requests),
                removed=len(removals),
            )

    def events(self) -> DeviceEvents:
        return DeviceEvents()

    def node_addresses(self) -> Sequence[str]:
        with NetlinkSocket() as connection:
            own = {link.index for link in observe.links(connection) if link.name.startswith(HOST_PREFIX)}
            return [
                one.address
                for one, ours, global_scope in observe.addresses(connection)
                if global_scope and not ours and one.link_index not in own and not ip_address(one.address).is_loopback
            ]


def _additions(want: RoutingState, have: RoutingState) -> list[Request]:
    """In the order in which they lean on one another."""
    routes = sorted(want.routes - have.routes, key=lambda one: -one.prefix_length)
    return [
        *(messages.address(one, add=True) for one in sorted(want.addresses - have.addresses)),
        *(messages.route(one, add=True) for one in routes),
        *(messages.rule(one, add=True) for one in sorted(want.rules - have.rules)),
        *(messages.proxy(one, add=True) for one in sorted(want.proxies - have.proxies)),
    ]


def _removals(want: RoutingState, have: RoutingState) -> list[Request]:
    """In the reverse order; to be sent after the additions."""
    routes = sorted(have.routes - want.routes, key=lambda one: one.prefix_length)
    return [
        *(messages.proxy(one, add=False) for one in sorted(have.proxies - want.proxies)),
        *(messages.rule(one, add=False) for one in sorted(have.rules - want.rules)),
        *(messages.route(one, add=False) for one in routes),
        *(messages.address(one, add=False) for one in sorted(have.addresses - want.addresses)),
    ]


def is_node_route(one: Route) -> bool:
    """Whether nodes.py put it there: the cloud interfaces' business it is not."""
    return one.table == MAIN_TABLE and one.metric == NODE_ROUTE_METRIC


def _observed(connection: NetlinkSocket) -> tuple[RoutingState, frozenset[LinkAddress]]:
    """What of ours is in the kernel, and the addresses that are not ours."""
    routes = frozenset(one for one in observe.routes(connection)[0] if not is_node_route(one))
    addresses = list(observe.addresses(connection))
    ours = frozenset(one for one, own, _ in addresses if own)
    state = RoutingState(routes, observe.rules(connection), observe.proxies(connection), ours)
    return state, frozenset(one for one, own, _ in addresses if not own)


__all__ = ["DeviceEvents", "KernelRouting", "is_node_route"]
