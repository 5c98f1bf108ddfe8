"""One small lab for all fault tests: real processes, two nodes, intervals of seconds.

Each test finds it whole: all processes up, no faults set, no pods, every node between its marks. A test that left it in
pieces costs the next one a new lab.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest_asyncio

from lab.lab import Lab
from lab.options import LabOptions

# What a test waits for at most; it is there after a few seconds if all is well.
PATIENCE_S: Final = 60.0
FAST: Final[dict[str, dict[str, object]]] = {
    "ipam-aws": {
        "release_delay_s": 0.5,
        "coalesce_s": 0.0,
        "resync_interval_s": 2.0,
        "collect_interval_s": 1.0,
        "leak_age_s": 2.0,
        "sweep_interval_s": 0.3,
        "lease_s": 3.0,
        "retry_base_s": 0.1,
        "retry_cap_s": 1.0,
        "block_s": 2.0,
        "max_attempts": 0,
    },
    "node": {"cooldown_s": 0.5, "reconcile_interval_s": 2.0, "address_wait_s": 1.0},
}


class Workshop:
    """Holds the lab between tests and puts it in order before each."""

    def __init__(self, root: Path) -> None:
        self._options = LabOptions(
            name=f"faults-{secrets.token_hex(3)}", root=root, nodes=2, pods=0, pre_allocate=4, settings=FAST
        )
        self._stack = AsyncExitStack()
        self._lab: Lab | None = None

    async def whole(self) -> Lab:
        if self._lab is not None:
            try:
                await heal(self._lab)
            except Exception:  # noqa: BLE001 - whatever it is, a new lab is in order
                await self.close()
        if self._lab is None:
            self._lab = await self._stack.enter_async_context(Lab(self._options))
            await self._lab.settled(timeout_s=PATIENCE_S)
        return self._lab

    async def close(self) -> None:
        self._lab = None
        await self._stack.aclose()


async def heal(lab: Lab) -> None:
    """Brings the lab back to its beginning. Raises when it does not get there."""
    await lab.ec2.set_faults()
    if not lab.redis_runs:
        lab.start_redis()
    for name in (*lab.central, *lab.nodes):
        if not lab.children[name].running:
            await lab.children.restart(name)
    for pod in list(lab.pods.running.values()):
        await lab.pods.stop(pod)
    for name in set(lab.nodes) - {"node-1", "node-2"}:
        await lab.remove_node(name)
    await lab.settled(timeout_s=PATIENCE_S)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fault_workshop() -> AsyncIterator[Workshop]:
    # Not pytest's own folder: the path of a Unix socket is limited.
    workshop = Workshop(Path("/run/plimsoll-lab"))
    yield workshop
    await workshop.close()


@pytest_asyncio.fixture(loop_scope="session")
async def fault_lab(fault_workshop: Workshop) -> Lab:
    """The lab, whole and without pods."""
    return await fault_workshop.whole()
