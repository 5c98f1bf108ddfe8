"""Fakes of the ports: a kernel in memory that remembers what it was told, and refuses on demand."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence

from datapath.devices.select import DeviceSelection
from datapath.devices.vxlan import DEFAULT_PORT, OVERHEAD, Done, Overlay
from datapath.errors import DatapathError, NamespaceGone, NotWired
from datapath.model import (
    OVERLAY_DEVICE,
    CloudLink,
    Endpoint,
    ExternalDevice,
    Found,
    NextHop,
    NodePods,
    NodeRoutesReport,
    RoutingReport,
)
from datapath.neighbours.kernel import NeighbourReport
from datapath.network_events import Changes


class FakeEndpoints:
    """Implements ports.Endpoints. `fail_next`: raised by the next `wire`. `gone`: namespaces that do not exist."""

    def __init__(self) -> None:
        self.wired: dict[str, Endpoint] = {}
        self.wire_calls = 0
        self.fail_next: DatapathError | None = None
        self.gone: set[str] = set()
        self.prepared = False
        self._lock = threading.Lock()

    def prepare(self) -> None:
        self.prepared = True

    def wire(self, endpoint: Endpoint) -> None:
        with self._lock:
            self.wire_calls += 1
            if self.fail_next is not None:
                error, self.fail_next = self.fail_next, None
                raise error
            if endpoint.netns in self.gone:
                raise NamespaceGone(f"network namespace {endpoint.netns!r} cannot be opened", field="CNI_NETNS")
            self.wired[endpoint.host_device] = endpoint

    def unwire(self, host_device: str, address: str) -> None:
        with self._lock:
            self.wired.pop(host_device, None)

    def check(self, endpoint: Endpoint) -> None:
        if self.wired.get(endpoint.host_device) != endpoint:
            raise NotWired(f"{endpoint.host_device} is missing on the node")

    def found(self) -> Sequence[Found]:
        return [Found(one.host_device, one.address, one.label, one.address6) for one in self.wired.values()]

    def restore(self, endpoints: Collection[Endpoint]) -> Sequence[str]:
        missing = [one for one in endpoints if one.host_device not in self.wired]
        for one in missing:
            self.wired[one.host_device] = one
        return [f"{one.host_device} for {' and '.join(one.addresses)} was missing and is back" for one in missing]


class FakeDeviceEvents:
    """Implements ports.DeviceEvents; `fire` makes it readable."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def fire(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def drain(self) -> bool:
        try:
            return os.eventfd_read(self._descriptor) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._descriptor)


class FakeRouting:
    """Implements ports.Routing. `absent`: MACs that no device has."""

    ranges: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.links: tuple[CloudLink, ...] = ()
        self.absent: set[str] = set()
        self.reconciles = 0
        self.last_events: FakeDeviceEvents | None = None

    def reconcile(self, links: Collection[CloudLink], ranges: Collection[str] = ()) -> RoutingReport:
        self.reconciles += 1
        self.ranges = tuple(ranges)
        self.links = tuple(links)
        there = [one for one in links if one.mac not in self.absent]
        return RoutingReport(
            devices={one.name: f"eth{one.device_index}" for one in there},
            mtus={one.name: 9001 for one in there},
            problems={one.name: f"no device of this node has the MAC {one.mac}" for one in links if one not in there},
        )

    def events(self) -> FakeDeviceEvents:
        self.last_events = FakeDeviceEvents()
        return self.last_events

    def node_addresses(self) -> Sequence[str]:
        return ["10.0.0.5"]


class FakeDevices:
    """Implements ports.Devices. `devices`: what the next look finds."""

    def __init__(self, *devices: ExternalDevice) -> None:
        self.devices = devices

    def detect(self) -> DeviceSelection:
        return DeviceSelection(self.devices)


class FakeOverlay:
    """Implements ports.Overlay."""

    def __init__(self) -> None:
        self.overlay: Overlay | None = None

    def ensure(self, *, underlay_mtu: int, port: int = DEFAULT_PORT, underlay_family: int = 4) -> Overlay:
        done = Done.CREATED if self.overlay is None else Done.KEPT
        self.overlay = Overlay(99, underlay_mtu - OVERHEAD[underlay_family], port, done)
        return self.overlay

    def remove(self) -> bool:
        there, self.overlay = self.overlay is not None, None
        return there


class FakeNodeRoutes:
    """Implements ports.NodeRoutes. `mode`: "tunnel", "direct" or empty. `remote`: nodes on no segment of this one."""

    def __init__(self, overlay: FakeOverlay | None = None) -> None:
        self.nodes: tuple[NodePods, ...] = ()
        self.mode = ""
        self.remote: set[str] = set()
        self._overlay = overlay

    def tunnel(self, nodes: Collection[NodePods], sources: Mapping[int, str] | None = None) -> NodeRoutesReport:
        if self._overlay is not None and self._overlay.overlay is None:
            raise NotWired(f"{OVERLAY_DEVICE} does not exist", remedy="create it before the routes through it")
        self.mode, self.nodes = "tunnel", tuple(nodes)
        return NodeRoutesReport(routes=sum(len(one.cidrs) for one in nodes))

    def direct(self, nodes: Collection[NodePods]) -> NodeRoutesReport:
        near = [one for one in nodes if one.name not in self.remote]
        self.mode, self.nodes = "direct", tuple(near)
        problems = {one.name: "it is on no segment of this node" for one in nodes if one.name in self.remote}
        return NodeRoutesReport(routes=sum(len(one.cidrs) for one in near), problems=problems)

    def clear(self) -> NodeRoutesReport:
        removed = sum(len(one.cidrs) for one in self.nodes)
        self.mode, self.nodes = "", ()
        return NodeRoutesReport(removed=removed)


class FakeNeighbours:
    """Implements ports.Neighbours. `managed`: whether the kernel can keep them by itself."""

    def __init__(self, *, managed: bool = True) -> None:
        self.kept: frozenset[NextHop] = frozenset()
        self.managed = managed
        self.refreshes = 0

    def reconcile(self, wanted: Collection[NextHop]) -> NeighbourReport:
        before, self.kept = self.kept, frozenset(wanted)
        return NeighbourReport(self.managed, len(self.kept - before), len(before - self.kept))

    def refresh(self, wanted: Collection[NextHop]) -> None:
        self.refreshes += 1


class FakeNetworkEvents:
    """Implements ports.NetworkEvents; `say` makes it readable."""

    def __init__(self) -> None:
        self._bell = FakeDeviceEvents()
        self._changes = Changes()

    def fileno(self) -> int:
        return self._bell.fileno()

    def say(self, changes: Changes) -> None:
        self._changes |= changes
        self._bell.fire()

    def drain(self) -> Changes:
        self._bell.drain()
        changes, self._changes = self._changes, Changes()
        return changes

    def close(self) -> None:
        self._bell.close()
