"""What bpf/sockmap.bpf.c and the daemon share: bpf/include/acceleration.h in Python; a test compares both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from datapath.record import Record, address16, be16, record, u32, u64

ACCELERATION_ENTERED: Final = 0
ACCELERATION_REDIRECTED: Final = 1
ACCELERATION_OFF: Final = 2
ACCELERATION_NO_PEER: Final = 3
ACCELERATION_POLICY: Final = 4
ACCELERATION_BEHIND: Final = 5
ACCELERATION_TLS: Final = 6
ACCELERATION_COUNTERS: Final = 7

# Why messages of sockets that had entered went through the stack.
REASONS: Final[Mapping[int, str]] = {
    ACCELERATION_OFF: "off",
    ACCELERATION_NO_PEER: "no-peer",
    ACCELERATION_POLICY: "policy",
    ACCELERATION_BEHIND: "behind",
    ACCELERATION_TLS: "tls",
}


@record
class AcceleratedEnd(Record):
    local: bytes = address16()
    remote: bytes = address16()
    namespace_cookie: int = u64()
    local_port: int = be16()
    remote_port: int = be16(pad=4)


@record
class AccelerationSettings(Record):
    enabled: int = u32()
    behind_bytes: int = u32()
