"""Heads of packets as a pcapng file, with nanoseconds, the device, and why each was told of as its comment.

    https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html

Written block by block, so that a file that was cut off, or is read while it grows, is whole up to its last packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_ETHERNET: Final = 1
_OPT_END: Final = 0
_OPT_COMMENT: Final = 1
_OPT_NAME: Final = 2
_OPT_RESOLUTION: Final = 9
_OPT_APPLICATION: Final = 4
_COMMENT_BYTES: Final = 1000


class PcapWriter:
    """Writes to a binary stream that somebody else opens and closes. Devices are declared as they turn up."""

    def __init__(self, stream: BinaryIO, *, application: str = "plimsoll", snap_bytes: int = 96) -> None:
        self._stream = stream
        self._snap_bytes = snap_bytes
        self._devices: dict[str, int] = {}
        self.packets = 0
        head = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1)
        self._block(_SECTION, head + _options((_OPT_APPLICATION, application.encode())))

    def write(self, time_ns: int, device: str, packet: bytes, length: int, comment: str = "") -> None:
        """
        :param time_ns: since 1970.
        :param packet: its head, from the Ethernet header on.
        :param length: of the whole packet, bytes.
        """
        number = self._devices.get(device)
        if number is None:
            number = self._declare(device)
        fixed = struct.pack(
            "=IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(packet), max(length, len(packet))
        )
        options = _options((_OPT_COMMENT, comment.encode()[:_COMMENT_BYTES])) if comment else b""
        self._block(_PACKET, fixed + _padded(packet) + options)
        self.packets += 1

    def _declare(self, device: str) -> int:
        number = self._devices[device] = len(self._devices)
        options = _options((_OPT_NAME, device.encode()), (_OPT_RESOLUTION, bytes([9])))
        self._block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, self._snap_bytes) + options)
        return number

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("=I", 12 + len(body))
        self._stream.write(struct.pack("=I", kind) + length + body + length)


def _options(*options: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
    return body + struct.pack("=HH", _OPT_END, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of a file. :ivar length: of the whole packet, of which `packet` is the head."""

    time_ns: int
    device: str
    packet: bytes
    length: int
    comment: str


def read_packets(data: bytes) -> Iterator[Packet]:
    """Packets of a file that PcapWriter wrote, up to where it was cut off."""
    devices: list[str] = []
    position = 0
    while position + 12 <= len(data):
        kind, length = struct.unpack_from("=II", data, position)
        body = data[position + 8 : position + length - 4]
        position += length
        if position > len(data):
            return
        if kind == _INTERFACE:
            devices.append(_option(body, 8, _OPT_NAME).decode())
        elif kind == _PACKET:
            number, high, low, caught, whole = struct.unpack_from("=IIIII", body)
            comment = _option(body, 20 + caught + -caught % 4, _OPT_COMMENT).decode()
            yield Packet(high << 32 | low, devices[number], body[20 : 20 + caught], whole, comment)


def _option(body: bytes, position: int, wanted: int) -> bytes:
    while position + 4 <= len(body):
        code, length = struct.unpack_from("=HH", body, position)
        if code == wanted:
            return body[position + 4 : position + 4 + length]
        position += 4 + length + -length % 4
    return b""
