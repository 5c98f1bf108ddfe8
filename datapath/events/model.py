"""One event, as `struct event` of bpf/include/types.h tells it."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from datapath.events import words

_MAPPED: Final = bytes(10) + b"\xff\xff"
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
        if self.type == words.DROP or self.verdict == words.DENY:
            return DROPPED
        return AUDITED if self.verdict == words.AUDIT else FORWARDED

    @property
    def packet(self) -> bytes:
        """The head of the packet, from its Ethernet header on."""
        return self.data[: self.data_length]


def address_text(address: bytes) -> str:
    """Canonical text of 16 bytes; empty for the unspecified address, which stands for "not known"."""
    if address[:12] == _MAPPED:
        return str(IPv4Address(address[12:]))
    return str(IPv6Address(address)) if any(address) else ""


def address_bytes(text: str) -> bytes:
    """The inverse. Raises ValueError."""
    packed = ip_address(text).packed
    return packed if len(packed) == 16 else _MAPPED + packed
