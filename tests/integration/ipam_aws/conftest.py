"""Sites of real processes, each with its own folder, which is printed from when a test fails."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.site import Site

MakeSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def make_site(request: pytest.FixtureRequest) -> AsyncIterator[MakeSite]:
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-site-", dir="/tmp"))  # short: a socket's path is limited
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> Site:
            return await stack.enter_async_context(Site(folder, **settings))

        yield make
    print_logs(folder)
    shutil.rmtree(folder)


def print_logs(folder: Path) -> None:
    """pytest shows what is printed only when the test failed."""
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))


@pytest.fixture
async def ipam_site(make_site: MakeSite) -> Site:
    return await make_site()
