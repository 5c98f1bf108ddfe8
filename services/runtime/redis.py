"""A private Redis as a child process: for the lab, for tests, and for a site on one machine.

It listens on a Unix socket only (mode 0600, in a folder of mode 0700), and keeps nothing on disk unless asked: Redis
holds the queue and the cloud budget here, both of which may be lost at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
# The kernel's limit for the path of a Unix socket is 108 bytes with the closing NUL.
SOCKET_PATH_MAX: Final = 107
_POLL_S: Final = 0.005


class RedisServerError(Exception):
    """Redis could not be started; the text says why and what to do."""


class RedisServer:
    """Debian's redis-server as a child, by `with`, `async with`, or start() and stop().

    The child gets SIGKILL when the *thread* that started it ends (PR_SET_PDEATHSIG), so start it from the main thread.

    :param folder: holds the socket, the log and, when `persistent`, the data. Made (0700) when absent.
    :param persistent: keeps an append-only file, synced each second, and loads it at the next start.
    """

    def __init__(self, folder: Path, *, persistent: bool = False) -> None:
        self.folder = folder
        self.persistent = persistent
        self.socket = folder / "redis.sock"
        self.log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What clients connect to: "unix:///path/redis.sock"."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """Process id of the running child. Raises RedisServerError when none runs."""
        if self._process is None:
            raise RedisServerError("redis-server is not running; call start() first")
        return self._process.pid

    def start(self) -> None:
        """Starts the child and returns once it answers a PING. Raises RedisServerError."""
        self._spawn()
        for pause_s in self._until_ready():
            time.sleep(pause_s)

    def stop(self) -> None:
        """Ends the child (SIGTERM, then SIGKILL) and removes its socket. No effect when none runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the child by SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.socket.unlink(missing_ok=True)

    def _spawn(self) -> None:
        if self._process is not None:
            raise RedisServerError(f"redis-server already runs as process {self._process.pid}")
        if len(str(self.socket).encode()) > SOCKET_PATH_MAX:
            raise RedisServerError(
                f"{self.socket} is longer than the {SOCKET_PATH_MAX} bytes that a Unix socket may have; "
                "use a folder with a shorter path"
            )
        program = shutil.which("redis-server")
        setpriv = shutil.which("setpriv")
        if program is None or setpriv is None:
            missing = "redis-server" if program is None else "setpriv"
            raise RedisServerError(f"{missing} is not installed; apt-get install redis-server util-linux")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        # setpriv sets the death signal and then becomes redis-server. Doing it here, between fork and exec, would run
        # Python in a forked copy of a process that has threads.
        self._process = subprocess.Popen(
            [setpriv, "--pdeathsig", "KILL", program, *self._options()],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o077,
            start_new_session=True,
        )

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.folder),
            "logfile": str(self.log),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes" if self.persistent else "no",
            "appendfsync": "everysec",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _until_ready(self) -> Iterator[float]:
        """Yields pauses until the child answers; ends it and raises when it does not."""
        process = self._process
        assert process is not None
        until = time.monotonic() + READY_TIMEOUT_S
        while not self._answers():
            if process.poll() is not None:
                self._process = None
                raise RedisServerError(f"redis-server ended with code {process.returncode}: {self._last_words()}")
            if time.monotonic() > until:
                self.kill()
                raise RedisServerError(f"redis-server did not answer in {READY_TIMEOUT_S:g} s: {self._last_words()}")
            yield _POLL_S

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return f"no log at {self.log}"
        return " | ".join(lines[-3:]) or f"{self.log} is empty"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._spawn()
        try:
            for pause_s in self._until_ready():
                await asyncio.sleep(pause_s)
        except asyncio.CancelledError:
            self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


__all__ = ["RedisServer", "RedisServerError"]
