"""Pings and lookups from inside a namespace, without a process for each.

A `Pinger` keeps one raw ICMP socket that was opened in its namespace, so a pod can ping hundreds of peers at once from
the lab's own event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from typing import Final

from lab import netns

_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0
_HEADER: Final = struct.Struct("!BBHHH")
_IP_TRANSPARENT: Final = 19
_PAYLOAD: Final = b"plimsoll"
_identifiers = itertools.count(1)


class Pinger:
    """Sends echo requests from one namespace. Use as a context manager inside a running event loop."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._identifier = next(_identifiers) & 0xFFFF
        self._sequences = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._socket: socket.socket

    def __enter__(self) -> Pinger:
        with netns.entered(self._namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    async def ping(self, address: str, *, source: str = "", timeout_s: float = 1.0, attempts: int = 3) -> bool:
        """True if `address` answered one of `attempts` requests. `source` is put into the packet, owned or not."""
        for _ in range(attempts):
            if await self._ping_once(address, source, timeout_s):
                return True
        return False

    async def _ping_once(self, address: str, source: str, timeout_s: float) -> bool:
        sequence = next(self._sequences) & 0xFFFF
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[sequence] = answer
        try:
            self._send(_echo_request(self._identifier, sequence), address, source)
            async with asyncio.timeout(timeout_s):
                return await answer == address
        except TimeoutError:
            return False
        except OSError:  # no route, or an answer that says unreachable
            await asyncio.sleep(timeout_s / 10)
            return False
        finally:
            del self._waiting[sequence]

    def _send(self, packet: bytes, address: str, source: str) -> None:
        if not source:
            self._socket.sendto(packet, (address, 0))
            return
        with netns.entered(self._namespace), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            # Transparent: may bind to an address that nobody here holds, and is routed by it.
            raw.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
            raw.bind((source, 0))
            raw.sendto(packet, (address, 0))

    def _receive(self) -> None:
        while True:
            try:
                packet, (address, _) = self._socket.recvfrom(2048)
            except OSError:  # nothing left, or an error of a packet sent before
                return
            offset = (packet[0] & 0x0F) * 4
            kind, _, _, identifier, sequence = _HEADER.unpack_from(packet, offset)
            waiting = self._waiting.get(sequence)
            if kind == _ECHO_REPLY and identifier == self._identifier and waiting and not waiting.done():
                waiting.set_result(address)


def _echo_request(identifier: int, sequence: int) -> bytes:
    checksum = _checksum(_HEADER.pack(_ECHO_REQUEST, 0, 0, identifier, sequence) + _PAYLOAD)
    return _HEADER.pack(_ECHO_REQUEST, 0, checksum, identifier, sequence) + _PAYLOAD


def _checksum(data: bytes) -> int:
    """Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
