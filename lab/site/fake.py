"""The fake cloud of a site."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from lab.clouds import AWS, CloudKind
from lab.site.processes import Process, http_ok

ACCOUNT: Final = AWS.account
REGION: Final = AWS.region


class Fake:
    """The fake cloud as a process, with its admin endpoint."""

    def __init__(self, kind: CloudKind, listen: str, log: Path, arguments: Sequence[str]) -> None:
        self.url = f"http://{listen}"
        command = ["--listen", listen, "--account", kind.account, "--region", kind.region, *arguments]
        self.process = Process(kind.fake, kind.fake_module, command, log, {})

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(raise_for_status=True)
        try:
            await self.process.start(lambda: http_ok(f"{self.url}/_admin/calls"))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.process.end()
        await self._session.close()

    async def launch(self, instance_type: str, **more: Any) -> str:
        """Launches an instance with its primary interface; returns its id."""
        return str((await self._ask("POST", "instances", {"type": instance_type, **more}))["id"])

    async def faults(self, **faults: Any) -> None:
        """The faults in force from now on, all of them."""
        await self._ask("PUT", "faults", faults)

    async def state(self) -> dict[str, Any]:
        return await self._ask("GET", "state")

    async def interfaces(self, instance_id: str) -> list[dict[str, Any]]:
        return [each for each in (await self.state())["interfaces"] if each["instance_id"] == instance_id]

    async def calls(self) -> dict[str, Any]:
        return await self._ask("GET", "calls")

    async def reset_calls(self) -> None:
        await self._ask("DELETE", "calls")

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        async with self._session.request(method, f"{self.url}/_admin/{path}", json=body) as answer:
            text = await answer.text()
            found: dict[str, Any] = json.loads(text) if text else {}
            return found
