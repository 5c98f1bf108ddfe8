"""Routes to the pods of other nodes: a pure plan, and the kernel brought in line with it.

    tunnel   10.2.0.0/24 dev plm_vxlan                           the device finds out which node
    direct   10.2.0.0/24 via 10.0.0.6 dev ens5                   the node itself is the next hop

Direct routes need both nodes on one segment: a gateway between them would not know the pods' addresses. They are routes
of the node's own stack; programs at the pods' devices find the same way without asking it. Both kinds lie in the main
table behind pods' own routes (NODE_ROUTE_METRIC tells them from others of ours).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from datapath import observe
from datapath.devices.observe import KernelRoute, kernel_routes
from datapath.errors import NotWired
from datapath.model import (
    HOST_PREFIX,
    MAIN_TABLE,
    NODE_ROUTE_METRIC,
    OVERLAY_DEVICE,
    PROTOCOL,
    NodePods,
    NodeRoutesReport,
    Route,
)
from datapath.netlink import NetlinkSocket
from datapath.routes import messages
from datapath.routes.kernel import is_node_route
from datapath.routes.segments import Segments

_WORDS: Final = {4: "IPv4", 6: "IPv6"}


@dataclass(frozen=True, slots=True)
class Plan:
    """:ivar problems: why pods of a node are not reached, one sentence by its name."""

    routes: frozenset[Route]
    problems: Mapping[str, str] = field(default_factory=dict)


def tunnelled(nodes: Collection[NodePods], overlay_index: int, sources: Mapping[int, str] | None = None) -> Plan:
    """:param sources: addresses that this node itself speaks from to other nodes' pods, by family (4, 6); the kernel
    chooses where there is none."""
    routes = set()
    for node in nodes:
        for network in _networks(node):
            source = (sources or {}).get(network.version, "")
            routes.add(_route(network, overlay_index, source=source))
    return Plan(frozenset(routes))


def direct(nodes: Collection[NodePods], table: Sequence[KernelRoute]) -> Plan:
    """:param table: routes of the main table that are not ours, with those on the link among them."""
    routes, problems = set(), {}
    segments = Segments(table)
    for node in nodes:
        hops: dict[int, tuple[str, int]] = {}
        reasons = {}
        for address in node.addresses:
            version = ip_address(address).version
            index, reason = segments.of(address)
            if index:
                hops.setdefault(version, (address, index))
            else:
                reasons[version] = reason
        for network in _networks(node):
            if network.version in hops:
                address, index = hops[network.version]
                routes.add(_route(network, index, address))
            else:
                lack = f"it has no {_WORDS[network.version]} address"
                why = reasons.get(network.version, lack)
                problems[node.name] = f"pods of {node.name} in {network} have no direct route: {why}"
    return Plan(frozenset(routes), problems)


class KernelNodeRoutes:
    """Implements ports.NodeRoutes. Thread-safe; reconciles run one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def tunnel(self, nodes: Collection[NodePods], sources: Mapping[int, str] | None = None) -> NodeRoutesReport:
        with self._lock, NetlinkSocket() as connection:
            overlay = next((link for link in observe.links(connection) if link.name == OVERLAY_DEVICE), None)
            if overlay is None:
                raise NotWired(f"{OVERLAY_DEVICE} does not exist", remedy="create it before the routes through it")
            return _applied(connection, tunnelled(nodes, overlay.index, sources))

    def direct(self, nodes: Collection[NodePods]) -> NodeRoutesReport:
        with self._lock, NetlinkSocket() as connection:
            own = {link.index for link in observe.links(connection) if link.name.startswith(HOST_PREFIX)}
            table = [
                one
                for one in kernel_routes(connection)
                if one.table == MAIN_TABLE and one.protocol != PROTOCOL and one.link_index not in own
            ]
            return _applied(connection, direct(nodes, table))

    def clear(self) -> NodeRoutesReport:
        with self._lock, NetlinkSocket() as connection:
            return _applied(connection, Plan(frozenset()))


def _applied(connection: NetlinkSocket, plan: Plan) -> NodeRoutesReport:
    have = frozenset(one for one in observe.all_routes(connection) if is_node_route(one))
    added, removed = plan.routes - have, have - plan.routes
    requests = [messages.route(one, add=True) for one in sorted(added)]
    # One that differs in its next hop only has been replaced by now.
    replaced = {(one.destination, one.prefix_length) for one in added}
    gone = [one for one in removed if (one.destination, one.prefix_length) not in replaced]
    connection.run(requests + [messages.route(one, add=False) for one in sorted(gone)])
    return NodeRoutesReport(routes=len(plan.routes), added=len(added), removed=len(gone), problems=plan.problems)


def _networks(node: NodePods) -> list[IPv4Network | IPv6Network]:
    return [ip_network(cidr) for cidr in node.cidrs]


def _route(network: IPv4Network | IPv6Network, link_index: int, gateway: str = "", source: str = "") -> Route:
    return Route(
        str(network.network_address), network.prefixlen, MAIN_TABLE, link_index, gateway, NODE_ROUTE_METRIC, source
    )


__all__ = ["KernelNodeRoutes", "Plan", "direct", "tunnelled"]
