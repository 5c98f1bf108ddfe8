"""Children of the lab: started in a namespace, watched, and ended with the lab however it ends.

Each child gets SIGKILL from the kernel when the lab's main thread ends (PR_SET_PDEATHSIG), and stands in the lab's
journal for the next run. `nsenter` and `setpriv` prepare it and then become it, so that the pid stays the same and no
Python runs between fork and exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab import netns
from lab.state import LabError, LabState

# Longer than the services' own grace of 10 s.
STOP_TIMEOUT_S: Final = 12.0
READY_TIMEOUT_S: Final = 60.0
_ABORT_TIMEOUT_S: Final = 2.0
_LAST_LINES: Final = 15
_POLL_S: Final = 0.05
# What a child needs of the lab's own environment.
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "VIRTUAL_ENV")


class ChildDied(LabError):
    """A child ended although nobody asked it to. The text holds its last words."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to start.

    :param namespace: network namespace to run in; None: the lab's own.
    :param stage: what has a higher one needs those below, and is ended before them.
    :param ready: returns True once the program does its work; asked again and again until then.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stage: int = 0


class Child:
    """A running program."""

    def __init__(self, program: Program, process: asyncio.subprocess.Process, log: Path) -> None:
        self.program = program
        self.log = log
        self.expected_to_end = False
        self.forced = False
        self._process = process

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL, as a crash would; returns when it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM; a child that does not end in time has its stacks written to its log, and is killed."""
        await self._end(signal.SIGTERM)

    async def _end(self, with_signal: signal.Signals) -> None:
        self.expected_to_end = True
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(with_signal)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self.forced = True
            # Python's fault handler writes all stacks; then the signal ends the process.
            for last in (signal.SIGABRT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(last)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ABORT_TIMEOUT_S):
                        await self._process.wait()
                        return

    def last_lines(self, count: int = _LAST_LINES) -> list[str]:
        try:
            return self.log.read_text(errors="replace").splitlines()[-count:]
        except OSError:
            return []

    def obituary(self) -> ChildDied:
        """Why it seems to have ended, for people."""
        code = self._process.returncode
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        words = "\n".join(f"    {line}" for line in self.last_lines()) or "    (it wrote nothing)"
        remedy = f"its whole log: {self.log} (--keep-logs keeps it)"
        if code == 2:
            remedy = f"the lab gave it settings it refuses: {' '.join(self.program.command)}; {remedy}"
        return ChildDied(f"{self.name} ended {how}; its last words:\n{words}", remedy)


class Children:
    """All children of one lab, in the order in which they started. Use as an async context manager."""

    def __init__(self, state: LabState) -> None:
        self._state = state
        self._logs = state.folder / "logs"
        self._children: dict[str, Child] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._death: asyncio.Future[Child] | None = None

    async def __aenter__(self) -> Children:
        self._logs.mkdir(exist_ok=True)
        self._death = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(self, *_: object) -> None:
        stages = sorted({child.program.stage for child in self._children.values()}, reverse=True)
        for stage in stages:
            names = [name for name, child in self._children.items() if child.program.stage == stage]
            await asyncio.gather(*(self.stop(name) for name in names))

    @property
    def forced(self) -> list[str]:
        """Names of the children that had to be killed, as they did not stop when asked to."""
        return [name for name, child in self._children.items() if child.forced]

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def __contains__(self, name: object) -> bool:
        return name in self._children

    async def start(self, program: Program, *, timeout_s: float = READY_TIMEOUT_S) -> Child:
        """Starts the program and returns once it is ready. Raises ChildDied, or LabError when it takes too long."""
        child = await self.spawn(program)
        await self.ready(child, timeout_s=timeout_s)
        return child

    async def spawn(self, program: Program) -> Child:
        """Starts the program without waiting for more than its pid."""
        old = self._children.get(program.name)
        assert old is None or not old.running, f"{program.name} runs already"
        log = self._logs / f"{program.name}.log"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            # From the event loop's own thread: the death signal comes when the thread that forked ends.
            process = await asyncio.create_subprocess_exec(
                *_wrapped(program),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=self._state.folder,
                env={**inherited, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **program.environment},
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._state.process(program.name, process.pid)
        child = self._children[program.name] = Child(program, process, log)
        self._watchers[program.name] = asyncio.create_task(self._watch(child))
        return child

    async def ready(self, child: Child, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await child.program.ready():
                    if not child.running:
                        raise child.obituary()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            words = "\n".join(f"    {line}" for line in child.last_lines())
            raise LabError(
                f"{child.name} was not ready after {timeout_s:g} s; its last words:\n{words}", f"its log: {child.log}"
            ) from None

    async def restart(self, name: str) -> Child:
        """Starts a program again that has ended."""
        return await self.start(self._children[name].program)

    async def stop(self, *names: str) -> None:
        """Ends these children one after the other, gently."""
        for name in names:
            await self._children[name].stop()
            await self._watchers[name]

    async def kill(self, *names: str) -> None:
        """Ends these children at once, as a crash would."""
        await asyncio.gather(*(self._children[name].kill() for name in names))

    async def death(self) -> Child:
        """Returns the first child that ended although nobody asked it to."""
        assert self._death is not None
        return await asyncio.shield(self._death)

    async def _watch(self, child: Child) -> None:
        await child.wait()
        if not child.expected_to_end and self._death is not None and not self._death.done():
            self._death.set_result(child)


def _wrapped(program: Program) -> list[str]:
    enter = ["nsenter", f"--net={netns.path_of(program.namespace)}"] if program.namespace else []
    return [*enter, "setpriv", "--pdeathsig", "KILL", *program.command]
