"""Redis emptied, ipam-aws killed, the cloud throttling: the pods go on, and the pools come back between their marks."""

from __future__ import annotations

import asyncio

import pytest

from lab.checks import pods_reach_each_other, whole
from lab.lab import Lab, together

pytestmark = [
    pytest.mark.root,
    pytest.mark.redis,
    pytest.mark.tool("nsenter", "setpriv"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
]


async def churn(lab: Lab, rounds: int) -> None:
    """Pods come and go on every node; each start and each stop must succeed."""
    for _ in range(rounds):
        pods = await together(*(lab.add_pod(node, timeout_s=60.0) for node in lab.nodes for _ in range(2)))
        await together(*(lab.pods.stop(pod) for pod in pods[::2]))


async def test_redis_killed_and_restarted_empty(fault_lab: Lab) -> None:
    await fault_lab.ec2.set_faults(mutate_latency_s=0.5)
    load = asyncio.create_task(churn(fault_lab, 3))
    await fault_lab.ec2.reset_calls()

    async def mutating() -> bool:
        return bool((await fault_lab.ec2.calls())["mutating"])

    await fault_lab.until(mutating, "the load to reach the cloud")
    fault_lab.redis.kill()
    fault_lab.start_redis()
    await load
    await whole(fault_lab)


async def test_redis_away_while_addresses_are_needed(fault_lab: Lab) -> None:
    fault_lab.redis.kill()
    await fault_lab.add_pods(4)
    await pods_reach_each_other(fault_lab)
    fault_lab.start_redis()
    await whole(fault_lab)


async def test_the_cloud_throttles_for_a_while(fault_lab: Lab) -> None:
    tight = {"rate": 0.5, "burst": 1}
    await fault_lab.ec2.set_faults(throttle={"mutate": tight, "read": {"rate": 2, "burst": 2}})
    await fault_lab.ec2.reset_calls()
    load = asyncio.create_task(churn(fault_lab, 3))

    async def throttled() -> bool:
        return int((await fault_lab.ec2.calls())["throttled"]) >= 3

    await fault_lab.until(throttled, "the cloud to throttle")
    await fault_lab.ec2.set_faults()
    await load
    await whole(fault_lab)


async def test_ipam_killed_and_restarted_under_load(fault_lab: Lab) -> None:
    await fault_lab.ec2.set_faults(mutate_latency_s=0.2)
    load = asyncio.create_task(churn(fault_lab, 4))
    for _ in range(2):
        await fault_lab.ec2.reset_calls()

        async def mutating() -> bool:
            return bool((await fault_lab.ec2.calls())["mutating"])

        await fault_lab.until(mutating, "the load to reach the cloud")
        await fault_lab.children.kill("ipam-aws")
        await fault_lab.children.restart("ipam-aws")
    await load
    await whole(fault_lab)


async def test_every_central_service_killed_at_once(fault_lab: Lab) -> None:
    await fault_lab.add_pods(2)
    await whole(fault_lab)
    await fault_lab.stop_central()
    await fault_lab.add_pods(4)
    await pods_reach_each_other(fault_lab)
    await fault_lab.start_central()
    await whole(fault_lab)
