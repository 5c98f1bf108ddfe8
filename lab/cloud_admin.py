"""Client of a fake cloud's admin endpoint: its state, its faults, its call counters. All fakes have the same one."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
from aiohttp.client_exceptions import ClientError

from lab import netns
from lab.state import LabError
from lab.topology import CloudState, read_state


class CloudRefused(LabError):
    """The fake cloud said no; the text holds its words."""


class CloudAdmin:
    """Speaks to the fake cloud at `host`:`port` inside a namespace. Use as an async context manager.

    Raises aiohttp.ClientError when the fake does not answer, CloudRefused when it says no.
    """

    def __init__(self, host: str, port: int, namespace: str | None = None) -> None:
        self.base = f"http://{host}:{port}/_admin"
        self._namespace = namespace

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=self._open_socket),
            timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def answers(self) -> bool:
        try:
            await self.document()
        except (ClientError, OSError):
            return False
        return True

    async def document(self, *, after_revision: int = -1, wait_s: float = 0.0) -> dict[str, Any]:
        """The whole state as the fake tells it; waits up to `wait_s` for a revision later than `after_revision`."""
        query = {"revision": str(after_revision), "wait_s": str(wait_s)} if wait_s else {}
        return await self._call("GET", "state", params=query)

    async def state(self, *, after_revision: int = -1, wait_s: float = 0.0) -> CloudState:
        return read_state(await self.document(after_revision=after_revision, wait_s=wait_s))

    async def launch(self, instance_type: str, **more: Any) -> str:
        """Launches an instance with its primary interface; returns its id."""
        answer = await self._call("POST", "instances", json={"type": instance_type, **more})
        return str(answer["id"])

    async def terminate(self, instance_id: str) -> None:
        await self._call("DELETE", f"instances/{instance_id}")

    async def set_faults(self, **faults: Any) -> None:
        """Replaces the faults in force; none given: the cloud is well again."""
        await self._call("PUT", "faults", json=faults)

    async def calls(self) -> dict[str, Any]:
        return await self._call("GET", "calls")

    async def reset_calls(self) -> None:
        await self._call("DELETE", "calls")

    async def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        async with self.session.request(method, f"{self.base}/{path}", **more) as response:
            text = await response.text()
        document: dict[str, Any] = json.loads(text) if text else {}
        if not response.ok:
            raise CloudRefused(f"the fake cloud refuses: {document.get('message', text)}")
        return document

    def _open_socket(self, address: Mapping[int, Any] | tuple[Any, ...]) -> socket.socket:
        assert isinstance(address, tuple)
        family, kind, protocol = address[:3]
        if self._namespace is None:
            opened = socket.socket(family, kind, protocol)
        else:
            with netns.entered(self._namespace):
                opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened
