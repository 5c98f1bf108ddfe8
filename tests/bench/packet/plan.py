"""Frames for test runs, and how they vary from packet to packet. Mirrors plan.h."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace
from typing import Final

TCP, UDP = 6, 17
SYN, ACK, SYN_ACK = 0x02, 0x10, 0x12
EACH_NEW: Final = 1 << 32
HEAD_BYTES: Final = 80
_PLAN: Final = struct.Struct("=80sIIIIHHI")


@dataclass(frozen=True, slots=True)
class End:
    """One end of flows. :ivar address: in text, of either family."""

    mac: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Packets of `flows` flows (a power of two), in turns. Flows differ in the ports of `varying` (its lower 16 bits)
    and of the other end (its upper ones), counted from the ports of both ends.

    :ivar size: of a frame, bytes, without checksum."""

    source: End
    destination: End
    protocol: int = TCP
    flags: int = ACK
    flows: int = 1
    destination_varies: bool = False
    size: int = 82
    mark: int = 0

    def reply(self, flags: int = ACK) -> Plan:
        """The other direction of the same flows."""
        return replace(
            self, source=self.destination, destination=self.source, flags=flags,
            destination_varies=not self.destination_varies,
        )  # fmt: skip

    @property
    def is_v6(self) -> bool:
        return ":" in self.source.address

    def packet(self, flow: int = 0) -> bytes:
        """The frame of one flow, checksums of IP and of the first flow's transport header right."""
        low, high = flow & 0xFFFF, flow >> 16
        ports = [self.source.port, self.destination.port]
        ports[self.destination_varies] += low
        ports[not self.destination_varies] += high
        body_size = self.size - 14 - (40 if self.is_v6 else 20)
        return self._ethernet() + self._ip(body_size) + self._transport([port & 0xFFFF for port in ports], body_size)

    def pack(self, out_ifindex: int = 0) -> bytes:
        """The value of the programs' map."""
        source_offset = 14 + (40 if self.is_v6 else 20)
        offsets = [source_offset, source_offset + 2]
        ports = [self.source.port, self.destination.port]
        if self.destination_varies:
            offsets.reverse()
            ports.reverse()
        return _PLAN.pack(self.packet()[:HEAD_BYTES], self.mark, self.flows - 1, *offsets, *ports, out_ifindex)

    def _ethernet(self) -> bytes:
        kind = 0x86DD if self.is_v6 else 0x0800
        return _mac(self.destination.mac) + _mac(self.source.mac) + struct.pack("!H", kind)

    def _ip(self, body_size: int) -> bytes:
        if self.is_v6:
            return struct.pack("!IHBB", 0x60000000, body_size, self.protocol, 64) + self._addresses()
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + body_size, 1, 0x4000, 64, self.protocol, 0)
        sum_ = checksum(head + self._addresses())
        return head[:10] + struct.pack("!H", sum_) + self._addresses()

    def _transport(self, ports: list[int], size: int) -> bytes:
        if self.protocol == UDP:
            head = struct.pack("!HHHH", *ports, size, 0)
            return head + bytes(size - len(head)) if not self.is_v6 else self._summed(head, size, 6)
        return self._summed(struct.pack("!HHIIBBHHH", *ports, 1, 1, 0x50, self.flags, 65535, 0, 0), size, 16)

    def _summed(self, head: bytes, size: int, place: int) -> bytes:
        body = bytearray(head + bytes(size - len(head)))
        pseudo = self._addresses() + struct.pack("!II", size, self.protocol)
        struct.pack_into("!H", body, place, checksum(pseudo + body))
        return bytes(body)

    def _addresses(self) -> bytes:
        family = socket.AF_INET6 if self.is_v6 else socket.AF_INET
        return socket.inet_pton(family, self.source.address) + socket.inet_pton(family, self.destination.address)


def checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
