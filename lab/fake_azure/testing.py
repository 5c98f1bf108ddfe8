"""A fake ARM in a thread of a test, reached over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.fake_azure.cloud import Cloud
from lab.fake_azure.launch import Seed, make_server
from lab.fake_cloud import testing

Running = testing.Running[Cloud]


@contextmanager
def running(seed: Seed | None = None, *, listen: str = "127.0.0.1:0", chance: int | None = 1) -> Iterator[Running]:
    """Serves until the block is left."""
    with testing.serving(lambda: make_server(seed or Seed(), chance), listen) as server:
        yield server
