"""Fakes of the ports: a kernel in memory that remembers what it was told, and refuses on demand."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from datapath.errors import DatapathError, NamespaceGone, NotWired
from datapath.events.decode import EVENT
from datapath.events.filters import protocol_number
from datapath.events.model import address_bytes
from datapath.model import CloudLink, Endpoint, Found, RoutingReport


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

    def __init__(self) -> None:
        self.links: tuple[CloudLink, ...] = ()
        self.absent: set[str] = set()
        self.reconciles = 0
        self.last_events: FakeDeviceEvents | None = None

    def reconcile(self, links: Collection[CloudLink]) -> RoutingReport:
        self.reconciles += 1
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


def event_record(
    *,
    type: int = 2,
    hook: int = 0,
    reason: int = 0,
    verdict: int = 0,
    source: str = "10.0.1.5",
    destination: str = "10.0.2.9",
    source_port: int = 0,
    destination_port: int = 0,
    protocol: str = "udp",
    ifindex: int = 0,
    out_ifindex: int = 0,
    source_identity: int = 0,
    destination_identity: int = 0,
    rule: int = 0,
    action: int = 0,
    suppressed: int = 0,
    length: int = 0,
    packet: bytes = b"",
    time_ns: int = 0,
    line: int = 0,
    file: int = 1,
) -> bytes:
    """One record of the ring buffer, as a program would write it."""
    return EVENT.pack(
        time_ns, type, hook, reason, verdict, line, protocol_number(protocol), action,
        address_bytes(source), address_bytes(destination), socket.htons(source_port), socket.htons(destination_port),
        ifindex, out_ifindex, source_identity, destination_identity, rule, suppressed, length, len(packet), file, 0, packet,
    )  # fmt: skip


class FakeRecords:
    """Implements events.hub.Records: what is `put` is read. `fail_next`: raised by the next read."""

    def __init__(self) -> None:
        self.lost = 0
        self.fail_next: OSError | None = None
        self._waiting: deque[list[bytes]] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, *records: bytes) -> None:
        self._waiting.append(list(records))
        os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> Sequence[bytes]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        found: list[bytes] = []
        while self._waiting:
            found += self._waiting.popleft()
        return found

    def close(self) -> None:
        os.close(self._descriptor)


class FakeNames:
    """Implements events.filters.Names. `pods`: by address; `devices`: name and pod by ifindex."""

    def __init__(self, pods: Mapping[str, str], devices: Mapping[int, tuple[str, str]]) -> None:
        self._pods = {address_bytes(address): pod for address, pod in pods.items()}
        self._devices = dict(devices)

    def pod_at(self, address: bytes) -> str:
        return self._pods.get(address, "")

    def pod_behind(self, ifindex: int) -> str:
        return self._devices.get(ifindex, ("", ""))[1]

    def device(self, ifindex: int) -> str:
        return self._devices.get(ifindex, ("", ""))[0]
