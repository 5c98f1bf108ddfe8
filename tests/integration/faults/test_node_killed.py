"""The node daemon killed and restarted under load: no lost lease, no address twice, running pods untouched."""

from __future__ import annotations

import asyncio

import pytest

from lab.checks import pods_reach_each_other, whole
from lab.lab import Lab
from lab.pods import CniError

pytestmark = [
    pytest.mark.root,
    pytest.mark.redis,
    pytest.mark.tool("nsenter", "setpriv"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
]


async def test_running_pods_notice_nothing(fault_lab: Lab) -> None:
    await fault_lab.add_pods(4)
    await fault_lab.children.kill(*fault_lab.nodes)
    await pods_reach_each_other(fault_lab)
    for node in fault_lab.nodes:
        await fault_lab.children.restart(node)
    await whole(fault_lab)


async def test_killed_while_pods_start_and_stop(fault_lab: Lab) -> None:
    stop = asyncio.Event()
    started = asyncio.Event()

    async def churn() -> int:
        """Starts and stops pods; what fails is tried again, as a runtime does."""
        count = 0
        while not stop.is_set():
            try:
                pod = await fault_lab.add_pod("node-1", timeout_s=5.0)
            except CniError:
                await asyncio.sleep(0.1)
                continue
            count += 1
            started.set()
            if count % 3:
                await end(pod.name)
        return count

    async def end(name: str) -> None:
        while True:
            try:
                await fault_lab.pods.stop(fault_lab.pods.running[name])
                return
            except CniError:
                await asyncio.sleep(0.1)

    load = asyncio.create_task(churn())
    for _ in range(3):
        started.clear()
        async with asyncio.timeout(30):
            await started.wait()
        await fault_lab.children.kill("node-1")
        await fault_lab.children.restart("node-1")
    stop.set()
    assert await load >= 3
    await whole(fault_lab)
    for pod in fault_lab.pods.running.values():
        await pod.check()
