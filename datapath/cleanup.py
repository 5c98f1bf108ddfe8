"""Takes everything of ours out of the kernel's network: routes, rules, neighbours, addresses, pods' pairs, the overlay.

What is ours is told by PROTOCOL and HOST_PREFIX alone, so no journal is needed and nothing of others is touched.
Running pods lose their network. Settings (forwarding) stay as they are: others may lean on them. Programs and maps are
not netlink's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datapath import observe
from datapath.endpoints import messages as endpoint_messages
from datapath.model import HOST_PREFIX, PROTOCOL, LinkAddress, ProxyNeighbour, Route, Rule
from datapath.neighbours import messages as neighbour_messages
from datapath.neighbours.kernel import neighbours
from datapath.netlink import NetlinkSocket
from datapath.routes import messages as route_messages

_DOOMED_GROUP: Final = 0x504C4E
_MINE: Final = frozenset({"veth", "vxlan", "netkit"})


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """What was there, in words that `ip` would use."""

    rules: Sequence[str] = ()
    routes: Sequence[str] = ()
    neighbours: Sequence[str] = ()
    addresses: Sequence[str] = ()
    devices: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.routes or self.neighbours or self.addresses or self.devices)


def clean(*, dry_run: bool = False) -> CleanupReport:
    """Of the calling thread's network namespace. Idempotent; what goes away meanwhile is no error.

    Raises KernelRefused.

    :param dry_run: only tell.
    """
    with NetlinkSocket() as connection:
        links = observe.links(connection)
        names = {link.index: link.name for link in links}
        rules, routes = sorted(observe.rules(connection)), sorted(observe.all_routes(connection))
        proxies = sorted(observe.proxies(connection))
        hops = sorted(one.next_hop for one in neighbours(connection) if one.protocol == PROTOCOL)
        addresses = sorted(one for one, ours, _ in observe.addresses(connection) if ours)
        devices = sorted(link.name for link in links if link.name.startswith(HOST_PREFIX) and link.kind in _MINE)
        if not dry_run:
            # Rules first: without them nothing of the rest is asked any more.
            connection.run([route_messages.rule(one, add=False) for one in rules])
            connection.run([route_messages.proxy(one, add=False) for one in proxies])
            connection.run([neighbour_messages.forget(one) for one in hops])
            connection.run([route_messages.route(one, add=False) for one in routes])
            connection.run([route_messages.address(one, add=False) for one in addresses])
            _remove(connection, devices)
        return CleanupReport(
            rules=[_rule(one) for one in rules],
            routes=[_route(one, names) for one in routes],
            neighbours=[
                *(_proxy(one, names) for one in proxies),
                *(f"{one.address} dev {names.get(one.link_index, one.link_index)}" for one in hops),
            ],
            addresses=[_address(one, names) for one in addresses],
            devices=devices,
        )


def _remove(connection: NetlinkSocket, devices: Sequence[str]) -> None:
    """All at once: the kernel waits a while for each removal, however many devices it is about."""
    if devices:
        connection.run([endpoint_messages.into_group(name, _DOOMED_GROUP) for name in devices])
        connection.run([endpoint_messages.delete_group(_DOOMED_GROUP)])


def _rule(one: Rule) -> str:
    return f"{one.priority}: from {one.source or 'all'} lookup {one.table} (IPv{one.family})"


def _route(one: Route, names: dict[int, str]) -> str:
    kind = "" if one.link_index else "unreachable "
    via = f" via {one.gateway}" if one.gateway else ""
    device = f" dev {names.get(one.link_index, one.link_index)}" if one.link_index else ""
    return f"{kind}{one.destination}/{one.prefix_length}{via}{device} table {one.table}"


def _proxy(one: ProxyNeighbour, names: dict[int, str]) -> str:
    return f"proxy {one.address} dev {names.get(one.link_index, one.link_index)}"


def _address(one: LinkAddress, names: dict[int, str]) -> str:
    return f"{one.address} dev {names.get(one.link_index, one.link_index)}"


__all__ = ["CleanupReport", "clean"]
