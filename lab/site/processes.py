"""Children of a site, and how to wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp

# Bounds for what hangs; all is there within a few seconds where the machine has little else to do.
UNTIL_TIMEOUT_S: Final = 40.0
_READY_TIMEOUT_S: Final = 60.0


class SiteError(Exception):
    """A process of the site did not do what it should; the text holds its last words."""


class Process:
    """A Python module as a child with its own log; SIGKILLed by the kernel when this process's main thread ends."""

    def __init__(self, name: str, module: str, arguments: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", module, *arguments]
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    async def start(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Returns once `ready()`; raises SiteError when the child ends before, or takes too long."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        until = time.monotonic() + _READY_TIMEOUT_S
        while not await ready():
            if self._process.returncode is not None or time.monotonic() > until:
                raise SiteError(f"{self.name} is not ready: {self.last_words()}")
            await asyncio.sleep(0.02)

    async def end(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal, awaits the end, and returns the exit code (0 when it did not run)."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(with_signal)
        try:
            async with asyncio.timeout(15.0):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise SiteError(f"{self.name} did not end: {self.last_words()}") from None

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


async def http_ok(url: str, unix: Path | None = None) -> bool:
    connector = aiohttp.UnixConnector(str(unix)) if unix else None
    try:
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def eventually(check: Callable[[], Awaitable[bool]], what: str, timeout_s: float = UNTIL_TIMEOUT_S) -> None:
    """For what tells nobody when it changes: asks until it is so. Raises SiteError that names `what`."""
    until = time.monotonic() + timeout_s
    while not await check():
        if time.monotonic() > until:
            raise SiteError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
