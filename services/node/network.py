"""The pool's interfaces in the kernel, level-triggered: told the whole pool, it brings what differs into force.

Whatever happens (a new pool, a device that appears, time) only says "look again". The kernel comes first and the pool
second: an address is leased only once its packets would find their way.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import structlog

from datapath.errors import DatapathError
from datapath.model import CloudLink, RoutingReport
from datapath.ports import Routing
from ipam.errors import StoreError
from ipam.holdings import derived
from ipam.journal import ADDRESS6
from ipam.local import LocalPool
from ipam.model import PoolInterface

# Devices come with a burst of events; looking once behind it is enough.
_DEBOUNCE_S = 0.05

_log = structlog.get_logger("network")


class Network:
    """Keeps the kernel as the pool wants it.

    :param interval_s: how often it looks without an event.
    :param ranges: of the node's own, for pods.
    :param way_mtu: MTU of pods whose packets leave by a device of the given MTU; by any, if that is 0.
    """

    def __init__(
        self,
        routing: Routing,
        pool: LocalPool,
        *,
        interval_s: float = 30.0,
        ranges: Collection[str] = (),
        way_mtu: Callable[[int], int] = int,
    ) -> None:
        self._routing = routing
        self._pool = pool
        self._interval_s = interval_s
        self._ranges = tuple(ranges)
        self._way_mtu = way_mtu
        self._lock = threading.Lock()
        self._report = RoutingReport()
        self._look_again = asyncio.Event()

    @property
    def report(self) -> RoutingReport:
        return self._report

    def mtu_of(self, interface_id: str) -> int:
        """For a pod of that interface, or of the node's own ranges, which have none; 0: unknown."""
        return self._way_mtu(self._report.mtus.get(interface_id, 0))

    def restore(self) -> None:
        """Brings the pool of the journal into force, as far as the kernel lets it.

        Without one, nothing is touched: whatever an earlier life left keeps pods talking until IPAM tells more."""
        if self._pool.interfaces():
            self._bring(self._pool.interfaces())

    async def take(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, str]:
        """Brings a whole pool into force. Returns what is not, by interface id. Raises StoreError."""
        return await asyncio.to_thread(self._take, dict(interfaces))

    def hold(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, str]:
        """`take`, blocking: for a node that knows its pool itself."""
        return self._take(dict(interfaces))

    async def run(self) -> None:
        """Looks again when devices change, and every `interval_s`."""
        events = self._routing.events()
        loop = asyncio.get_running_loop()
        loop.add_reader(events.fileno(), lambda: self._look_again.set() if events.drain() else None)
        self._look_again.set()  # what came before the socket was there has been told to nobody
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval_s):
                        await self._look_again.wait()
                        await asyncio.sleep(_DEBOUNCE_S)
                self._look_again.clear()
                await asyncio.to_thread(self._again)
        finally:
            loop.remove_reader(events.fileno())
            events.close()

    def _take(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, str]:
        with self._lock:
            problems = self._bring(self._pool.kept(interfaces))
            self._pool.apply(interfaces)
            return {name: why for name, why in problems.items() if name in interfaces}

    def _again(self) -> None:
        with self._lock:
            if self._pool.interfaces():
                self._bring(self._pool.interfaces())

    def _bring(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, str]:
        # A range of the node's own has no device that could be missing.
        clouds = [one for one in interfaces.values() if one.mac]
        if not clouds and not self._ranges and self._report == RoutingReport():
            self._pool.set_unusable({})
            return {}
        try:
            report = self._routing.reconcile([_link(one, self._kept(one)) for one in clouds], self._ranges)
        except DatapathError as error:
            _log.error("the kernel refuses", error=error.message)
            problems = {one.id: error.message for one in clouds if one.id not in self._report.devices}
            self._pool.set_unusable(problems)
            return {one.id: error.message for one in clouds}
        if report.problems != self._report.problems:
            for name, why in report.problems.items():
                _log.warning("interface is not in force", interface=name, why=why)
        if report.added or report.removed:
            _log.info("kernel brought in line", added=report.added, removed=report.removed)
        self._report = report
        self._pool.set_unusable(report.problems)
        return report.problems

    def _kept(self, interface: PoolInterface) -> frozenset[str]:
        """Addresses that pods hold though the pool has lost them: their packets still go by the old interface."""
        own = [lease for lease in self._pool.leases() if lease.interface_id == interface.id]
        second = {lease.attributes.get(ADDRESS6, "") for lease in own} - {""}
        return frozenset(lease.address for lease in own) | second


class Parts:
    """The pools of a node, each told by a stream of its own; the network takes them as one.

    What the journal has of a pool stays until that pool's own stream tells more.

    :param names: of the pools; empty: the default one.
    """

    def __init__(self, network: Network, names: Collection[str], known: Mapping[str, PoolInterface]) -> None:
        self._network = network
        self._parts: dict[str, dict[str, PoolInterface]] = {name: {} for name in names}
        for interface in known.values():
            if interface.pool in self._parts:
                self._parts[interface.pool][interface.id] = interface
        self._left_out = any(interface.pool not in self._parts for interface in known.values())
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Leaves out what the journal has of pools that the node has no more. Durable when it returns: the service may
        be told then that there are no such pools, and releases them. Raises StoreError."""
        async with self._lock:
            if self._left_out:
                await self._network.take(self._whole())
                self._left_out = False

    async def take(self, name: str, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, str]:
        """Brings one pool into force beside the others. Returns what of it is not, by interface id. Raises
        StoreError."""
        async with self._lock:
            for part in self._parts.values():  # an interface whose tag was changed is where it was told last
                for known in part.keys() & interfaces.keys():
                    del part[known]
            self._parts[name] = {key: replace(one, pool=name) for key, one in interfaces.items()}
            problems = await self._network.take(self._whole())
        return {key: why for key, why in problems.items() if key in interfaces}

    def _whole(self) -> dict[str, PoolInterface]:
        return {key: one for part in self._parts.values() for key, one in part.items()}


def _link(interface: PoolInterface, kept: frozenset[str]) -> CloudLink:
    addresses = frozenset(interface.addresses) | frozenset(interface.ipv6_addresses) | kept
    if interface.ipv6_prefixes:
        addresses |= {derived(interface.ipv6_prefixes[0], address) for address in interface.addresses}
    return CloudLink(
        name=interface.id,
        mac=interface.mac.lower(),
        device_index=interface.device_index,
        gateway=interface.gateway,
        # An address that pods get must not be the host's own.
        primary_address="" if interface.primary_address in interface.addresses else interface.primary_address,
        addresses=addresses,
        gateway6=interface.ipv6_gateway,
    )


async def settle(pool: LocalPool, longest_s: float = 1.0) -> None:
    """Ends cooldowns in time, for those who wait and for the reports; runs until cancelled."""
    while True:
        next_s: float | None = None
        try:
            next_s = await asyncio.to_thread(pool.settle)
        except StoreError as error:
            _log.error("the journal refuses", error=error.message)
        await asyncio.sleep(longest_s if next_s is None else min(max(next_s, 0.02), longest_s))
