"""External devices as the kernel has them now. What tells of changes is network_events.py."""

from __future__ import annotations

from collections.abc import Sequence

from datapath import observe
from datapath.devices.observe import kernel_addresses, kernel_routes
from datapath.devices.select import DeviceSelection, select
from datapath.netlink import NetlinkSocket


class KernelDevices:
    """Implements ports.Devices. Thread-safe: each call opens its own socket.

    :param patterns: names of the external devices with wildcards; none: detected.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = tuple(patterns)

    def detect(self) -> DeviceSelection:
        """Raises KernelRefused."""
        with NetlinkSocket() as connection:
            return select(
                observe.links(connection), kernel_routes(connection), kernel_addresses(connection), self._patterns
            )


__all__ = ["KernelDevices"]
