"""A server beyond the VPC that logs the source address it saw, and tells it to the caller.

It runs in the lab's own event loop on a socket of the outside namespace. Later issues ask it whose address traffic
leaves with; here it proves that a pod reaches the world with its own address.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Final, Self

from lab import netns

PORT: Final = 8080


class SourceLog:
    """Accepts TCP connections in a namespace and answers each with its source address. Async context manager."""

    def __init__(self, namespace: str, address: str) -> None:
        self._namespace = namespace
        self.address = address
        self.seen: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        with netns.entered(self._namespace):
            listener = socket.create_server((self.address, PORT), backlog=128)
        self._server = await asyncio.start_server(self._answer, sock=listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        self.seen[source] += 1
        writer.write(source.encode() + b"\n")
        writer.close()


async def source_seen_from(namespace: str, server: str, *, timeout_s: float = 2.0) -> str:
    """Connects from inside `namespace` and returns the source address that the server saw. Raises OSError."""
    with netns.entered(namespace):
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    with connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                await loop.sock_connect(connection, (server, PORT))
                return (await loop.sock_recv(connection, 64)).decode().strip()
        except TimeoutError:
            raise OSError(f"{server} did not answer in {timeout_s:g} s") from None
