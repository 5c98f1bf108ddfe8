"""What is on which link, by routes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from datapath.devices.observe import KernelRoute


class Segments:
    """Which device an address is on the link of, by the most specific route that covers it."""

    def __init__(self, table: Iterable[KernelRoute]) -> None:
        parsed = [(ip_network(f"{one.destination}/{one.prefix_length}"), one) for one in table]
        self._table = sorted(parsed, key=lambda pair: (-pair[1].prefix_length, pair[1].metric))

    def of(self, address: str) -> tuple[int, str]:
        """Index of the device, or 0 and why there is none."""
        parsed = ip_address(address)
        for network, route in self._table:
            if parsed.version == network.version and parsed in network:
                if not route.gateway:
                    return route.link_index, ""
                return 0, (
                    f"its address {address} is reached by the gateway {route.gateway}, not on a segment of this node; "
                    "use the tunnel, or leave the routes to the network between the nodes"
                )
        return 0, f"this node has no route to its address {address}"


__all__ = ["Segments"]
