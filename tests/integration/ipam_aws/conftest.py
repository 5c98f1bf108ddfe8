"""Sites of real processes, each with its own folder, which is printed from when a test fails."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lab.site import Site

MakeSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def make_site() -> AsyncIterator[MakeSite]:
    async with site_folder() as folder, AsyncExitStack() as stack:

        async def make(**settings: Any) -> Site:
            return await stack.enter_async_context(Site(folder, **settings))

        yield make


@asynccontextmanager
async def site_folder() -> AsyncIterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="plimsoll-site-", dir="/tmp"))  # short: a socket's path is limited
    try:
        yield folder
        print_logs(folder)
    finally:
        shutil.rmtree(folder)


def print_logs(folder: Path) -> None:
    """pytest shows what is printed only when the test failed."""
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))


@pytest.fixture
async def ipam_site(make_site: MakeSite) -> Site:
    """A site of the test's own, to kill and to count in."""
    return await make_site()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_site() -> AsyncIterator[Site]:
    """One site for those tests of a file that leave it well, and have nodes of their own names."""
    async with site_folder() as folder, Site(folder) as site:
        yield site
