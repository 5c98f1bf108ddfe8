"""One event, as `struct event` of bpf/include/types.h tells it."""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from datapath.layout import EVENT_DROP, POLICY_AUDIT, POLICY_DENY

_ICMP: Final = frozenset((socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6))

FORWARDED: Final = "forwarded"
DROPPED: Final = "dropped"
AUDITED: Final = "audited"


class Event(NamedTuple):
    """A tuple because tens of thousands are made a second, and nearly all are filtered away unread: what a reader wants
    to know is worked out when it is asked for. Fields stand as in `struct event`.

    :ivar time_ns: CLOCK_MONOTONIC.
    :ivar reason: of a drop; of a step: which one.
    :ivar source: 16 bytes, an IPv4 address as ::ffff:a.b.c.d.
    :ivar source_port_be: as it stands in memory; `source_port` is the number.
    :ivar suppressed: events of this reason and CPU that the program left out since the last one.
    :ivar length: of the packet, bytes.
    :ivar data: the head of the packet; only `data_length` bytes count.
    """

    time_ns: int
    type: int
    hook: int
    reason: int
    verdict: int
    line: int
    protocol: int
    action: int
    source: bytes
    destination: bytes
    source_port_be: int
    destination_port_be: int
    ifindex: int
    out_ifindex: int
    source_identity: int
    destination_identity: int
    rule: int
    suppressed: int
    length: int
    data_length: int
    file: int
    cpu: int
    data: bytes

    @property
    def source_port(self) -> int:
        return socket.ntohs(self.source_port_be)

    @property
    def destination_port(self) -> int:
        return socket.ntohs(self.destination_port_be)

    @property
    def has_ports(self) -> bool:
        """ICMP's ports are the numbers that its flows are kept by, of no use to people."""
        return bool(self.source_port_be or self.destination_port_be) and self.protocol not in _ICMP

    @property
    def outcome(self) -> str:
        """forwarded, dropped or audited."""
        if self.type == EVENT_DROP or self.verdict == POLICY_DENY:
            return DROPPED
        return AUDITED if self.verdict == POLICY_AUDIT else FORWARDED

    @property
    def packet(self) -> bytes:
        """The head of the packet, from its Ethernet header on."""
        return self.data[: self.data_length]
