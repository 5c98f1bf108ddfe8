"""Real traffic between namespaces of a lab, and what is seen of it."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.datapath.paths.lab import Lab

CHUNK = bytes(range(256)) * 256


def _receive_all(connection: socket.socket) -> bytes:
    """Digest and length of everything until the end, sent back."""
    digest, length = hashlib.sha256(), 0
    while data := connection.recv(1 << 18):
        digest.update(data)
        length += len(data)
    return digest.digest() + length.to_bytes(8, "big")


def transfer(
    lab: Lab, client: str, server: str, address: str, size: int = 4 << 20, *, to: tuple[str, int] | None = None
) -> str:
    """Sends so many bytes by TCP, and has a digest come back. Returns the client's address as the server saw it.

    :param to: what the client connects to, if it is not the server's own address; port 0 stands for the server's."""
    seen: list[str] = []

    def serve(connection: socket.socket) -> None:
        seen.append(connection.getpeername()[0])
        connection.sendall(_receive_all(connection))

    with lab.serving(server, address, serve) as port:
        target = (to[0], to[1] or port) if to else (address, port)
        with lab.socket(client, 6 if ":" in address else 4, socket.SOCK_STREAM) as one:
            one.connect(target)
            digest, left = hashlib.sha256(), size
            while left:
                piece = CHUNK[: min(left, len(CHUNK))]
                one.sendall(piece)
                digest.update(piece)
                left -= len(piece)
            one.shutdown(socket.SHUT_WR)
            answer = b""
            while data := one.recv(4096):
                answer += data
    assert answer == digest.digest() + size.to_bytes(8, "big")
    return seen[0]


@contextmanager
def echoing(lab: Lab, space: str, address: str) -> Iterator[tuple[int, list[str]]]:
    """A UDP server that sends back what it gets. Yields its port, and whom it heard."""
    heard: list[str] = []
    with lab.socket(space, 6 if ":" in address else 4, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        one.bind((address, 0))
        one.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    data, sender = one.recvfrom(1 << 16)
                except TimeoutError:
                    continue
                except OSError:
                    continue  # an ICMP error about something we sent
                heard.append(sender[0])
                one.sendto(data, sender)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield one.getsockname()[1], heard
        finally:
            stop.set()
            thread.join(5)


def datagrams(lab: Lab, client: str, server: str, address: str, sizes: tuple[int, ...]) -> str:
    """Sends a datagram of each size and gets it back. Returns the client's address as the server saw it."""
    with echoing(lab, server, address) as (port, heard):
        with lab.socket(client, 6 if ":" in address else 4, socket.SOCK_DGRAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            one.settimeout(3)
            if ":" not in address:
                one.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: may be cut on the way
            for size in sizes:
                data = (CHUNK * 2)[:size]
                one.sendto(data, (address, port))
                assert one.recv(1 << 16) == data, f"{size} bytes"
        return heard[0]


def path_mtu(lab: Lab, client: str, address: str, port: int, size: int) -> int:
    """Sends datagrams that must not be cut, until the kernel has learned what fits. Returns that, in bytes."""
    family = 6 if ":" in address else 4
    level, discover, mtu = (socket.IPPROTO_IPV6, 23, 24) if family == 6 else (socket.IPPROTO_IP, 10, 14)
    with lab.socket(client, family, socket.SOCK_DGRAM) as one:
        one.setsockopt(level, discover, 2)
        one.connect((address, port))
        one.settimeout(2)
        for _ in range(3):
            try:
                one.send(bytes(size))
                one.recv(1 << 16)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    break
        return one.getsockopt(level, mtu)
