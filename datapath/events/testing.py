"""Fakes: a ring buffer and names of pods in memory, and records as programs write them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence

from datapath.events.decode import EVENT
from datapath.events.filters import protocol_number
from datapath.layout import address_bytes


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
        ifindex, out_ifindex, source_identity, destination_identity, rule, suppressed, length, len(packet), file, 0,
        packet,
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
