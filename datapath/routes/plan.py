"""What the kernel should hold for the cloud interfaces, as a pure function.

A VPC delivers an address to one interface only and takes its packets from that one only. Hence, for each interface, a
table with a default route by its gateway, and for each address a rule that sends its packets to that table:

    0      local                                        the node itself
    5000   main, prefixes of 32 only                    pods of this node (and host routes of its administrator)
    5010   from <address> lookup 20000 + device index   everything else, by the right interface
    32766  main                                         the node's own traffic

Rules are there for all addresses of the pool, before any pod has one: a pod start adds none. An address that no pod
has is unreachable, or its packets would go back and forth between node and gateway until their hops are used up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from datapath.model import (
    IDLE_ROUTE_METRIC,
    LOCAL_RULE_PRIORITY,
    SOURCE_RULE_PRIORITY,
    CloudLink,
    Link,
    LinkAddress,
    ProxyNeighbour,
    Route,
    RoutingState,
    Rule,
)

_MAIN = 254
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


def desired(wanted: Collection[CloudLink], found: dict[str, Link]) -> RoutingState:
    """The whole desired state for the interfaces that are in the kernel."""
    routes: set[Route] = set()
    rules: set[Rule] = {Rule(LOCAL_RULE_PRIORITY, _MAIN, suppress_length=31)}
    proxies: set[ProxyNeighbour] = set()
    addresses: set[LinkAddress] = set()
    for one in wanted:
        link = found.get(one.name)
        if link is None:
            continue
        routes.add(Route(one.gateway, 32, one.table, link.index))
        routes.add(Route("0.0.0.0", 0, one.table, link.index, one.gateway))  # noqa: S104  nothing is bound
        sources = set(one.addresses)
        if one.device_index and one.primary_address:
            addresses.add(LinkAddress(one.primary_address, link.index))
            sources.add(one.primary_address)
        for source in sources:
            rules.add(Rule(SOURCE_RULE_PRIORITY, one.table, source))
        for address in one.addresses:
            proxies.add(ProxyNeighbour(address, link.index))
            routes.add(Route(address, 32, _MAIN, 0, metric=IDLE_ROUTE_METRIC))
    return RoutingState(frozenset(routes), frozenset(rules), frozenset(proxies), frozenset(addresses))
