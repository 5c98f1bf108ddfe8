"""A fake EC2 in a thread of a test, reached over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from aiohttp import web

from lab.fake_ec2.app import Server, serve
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.faults import read_faults
from lab.fake_ec2.launch import make_cloud
from lab.fake_ec2.seed import Seed

T = TypeVar("T")
_START_S = 10.0


@dataclass(slots=True)
class Running:
    """`url` is what an SDK takes as its endpoint."""

    url: str
    server: Server
    loop: asyncio.AbstractEventLoop

    def do(self, what: Callable[[Cloud], T]) -> T:
        """Looks at the cloud, or changes it, between two calls."""

        async def inside() -> T:
            self.server.cloud.settle()
            return what(self.server.cloud)

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result()

    def set_faults(self, **faults: object) -> None:
        """The faults in force from now on, all of them."""

        def set_(cloud: Cloud) -> None:
            cloud.faults = read_faults(faults)

        self.do(set_)

    def reset(self) -> None:
        self.do(lambda _: self.server.reset())


@contextmanager
def running(seed: Seed | None = None, *, listen: str = "127.0.0.1:0", chance: int | None = 1) -> Iterator[Running]:
    """Serves until the block is left."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-ec2", daemon=True)
    thread.start()
    try:
        server, runner, listening = asyncio.run_coroutine_threadsafe(
            _start(partial(make_cloud, seed or Seed(), chance), listen), loop
        ).result(_START_S)
        try:
            yield Running(f"http://{listening}", server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(_START_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(make: Callable[[], Cloud], listen: str) -> tuple[Server, web.AppRunner, str]:
    server = Server(make)
    return server, *await serve(server, listen)
