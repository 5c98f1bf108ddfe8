"""What the kernel should hold for the cloud interfaces, as a pure function.

A VPC delivers an address to one interface only and takes its packets from that one only. Hence, for each interface, a
table with a default route by its gateway, and for each address a rule that sends its packets to that table:

    0      local                                        the node itself
    5000   main, prefixes of 32 only                    pods of this node (and host routes of its administrator)
    5010   from <address> lookup 20000 + device index   everything else, by the right interface
    32766  main                                         the node's own traffic

IPv6 is the same with /128, 127 and its own rules, as far as the cloud tells of a gateway for it.

Rules are there for all addresses of the pool, before any pod has one: a pod start adds none. An address that no pod
has is unreachable, or its packets would go back and forth between node and gateway until their hops are used up. So are
the node's own ranges, each as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from datapath.model import (
    IDLE_ROUTE_METRIC,
    LOCAL_RULE_PRIORITY,
    MAIN_TABLE,
    SOURCE_RULE_PRIORITY,
    CloudLink,
    Link,
    LinkAddress,
    ProxyNeighbour,
    Route,
    RoutingState,
    Rule,
)

_EVERYTHING = {4: "0.0.0.0", 6: "::"}  # noqa: S104  destinations of routes, nothing is bound
_WHOLE = {4: 32, 6: 128}
# Devices stacked on an interface bear its MAC too.
_STACKED = frozenset({"vlan", "macvlan", "ipvlan", "macvtap", "ipvtap", "bridge", "bond", "team", "macsec", "vrf"})


def match(wanted: Collection[CloudLink], links: Sequence[Link]) -> tuple[dict[str, Link], dict[str, str]]:
    """Devices of cloud interfaces, found by MAC, by the interface's id; and why some have none."""
    by_mac = {link.mac: link for link in links if link.kind not in _STACKED}
    found: dict[str, Link] = {}
    problems: dict[str, str] = {}
    indices: dict[int, str] = {}
    for one in sorted(wanted, key=lambda link: (link.device_index, link.name)):
        link = by_mac.get(one.mac.lower())
        other = indices.setdefault(one.device_index, one.name)
        if other != one.name:
            problems[one.name] = f"device index {one.device_index} is taken by {other}"
        elif link is None:
            problems[one.name] = f"no device of this node has the MAC {one.mac}"
        else:
            found[one.name] = link
    return found, problems


def desired(wanted: Collection[CloudLink], found: dict[str, Link], ranges: Collection[str] = ()) -> RoutingState:
    """The whole desired state for the interfaces that are in the kernel.

    :param ranges: of the node's own, for pods."""
    routes = {_idle(ip_network(text)) for text in ranges}
    rules: set[Rule] = {_local_rule(4)}
    proxies: set[ProxyNeighbour] = set()
    addresses: set[LinkAddress] = set()
    for one in wanted:
        link = found.get(one.name)
        if link is None:
            continue
        gateways = {4: one.gateway, 6: one.gateway6}
        primaries = {one.primary_address, one.primary_address6} - {""} if one.device_index else set()
        addresses.update(LinkAddress(address, link.index) for address in primaries)
        for family, gateway in gateways.items():
            if gateway:
                routes.update(_table(one.table, link.index, gateway, family))
        for source in one.addresses | primaries:
            family = _family(source)
            if gateways[family]:
                rules.update((_local_rule(family), Rule(SOURCE_RULE_PRIORITY, one.table, source, family=family)))
        for address in one.addresses:
            proxies.add(ProxyNeighbour(address, link.index))
            routes.add(_idle(ip_network(address)))
    return RoutingState(frozenset(routes), frozenset(rules), frozenset(proxies), frozenset(addresses))


def _idle(network: IPv4Network | IPv6Network) -> Route:
    return Route(str(network.network_address), network.prefixlen, MAIN_TABLE, 0, metric=IDLE_ROUTE_METRIC)


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _local_rule(family: int) -> Rule:
    return Rule(LOCAL_RULE_PRIORITY, MAIN_TABLE, suppress_length=_WHOLE[family] - 1, family=family)


def _table(table: int, link_index: int, gateway: str, family: int) -> set[Route]:
    """A default route; and the way to the gateway for packets to itself, but for one that is on every link."""
    default = Route(_EVERYTHING[family], 0, table, link_index, gateway)
    if ip_address(gateway).is_link_local:
        return {default}
    return {default, Route(gateway, _WHOLE[family], table, link_index)}
