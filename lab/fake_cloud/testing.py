"""A fake cloud in a thread of a test, reached over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web

from lab.fake_cloud.faults import read_faults
from lab.fake_cloud.gate import C
from lab.fake_cloud.server import Server, serve

T = TypeVar("T")
_START_S = 10.0


@dataclass(slots=True)
class Running(Generic[C]):
    """`url` is what an SDK takes as its endpoint."""

    url: str
    server: Server[C]
    loop: asyncio.AbstractEventLoop

    def do(self, what: Callable[[C], T]) -> T:
        """Looks at the cloud, or changes it, between two calls."""

        async def inside() -> T:
            self.server.cloud.settle()
            return what(self.server.cloud)

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result()

    def set_faults(self, **faults: object) -> None:
        """The faults in force from now on, all of them."""

        def set_(cloud: C) -> None:
            cloud.faults = read_faults(faults)

        self.do(set_)

    def reset(self) -> None:
        self.do(lambda _: self.server.reset())


@contextmanager
def serving(make: Callable[[], Server[C]], listen: str = "127.0.0.1:0") -> Iterator[Running[C]]:
    """Serves until the block is left. `make` is called in the loop that serves."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-cloud", daemon=True)
    thread.start()
    try:
        server, runner, listening = asyncio.run_coroutine_threadsafe(_start(make, listen), loop).result(_START_S)
        try:
            yield Running(f"http://{listening}", server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(_START_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(make: Callable[[], Server[C]], listen: str) -> tuple[Server[C], web.AppRunner, str]:
    server = make()
    return server, *await serve(server, listen)
