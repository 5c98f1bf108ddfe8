"""A worker killed by SIGKILL in the middle of each cloud call, before and after the call took effect.

The fake cloud hangs on the call, having done it or not; the worker is killed; another takes over. No interface leaks,
no address is lost or leased twice, and the pool comes back between its marks.
"""

from __future__ import annotations

import secrets

import pytest

from lab.checks import whole
from lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def hang_on(lab: Lab, action: str, *, after_effect: bool) -> None:
    """The next call of `action` is never answered."""
    await lab.ec2.set_faults(fail=[{"action": action, "code": "hang", "after_effect": after_effect}])
    await lab.ec2.reset_calls()


async def caught(lab: Lab, action: str) -> None:
    """Waits until a call of `action` hangs, then kills the worker, and lets a new one work in a cloud that is well."""

    async def look() -> bool:
        calls = await lab.ec2.calls()
        return bool(calls["by_action"].get(action))

    await lab.until(look, f"a call of {action}")
    await lab.children.kill("worker")
    await lab.ec2.set_faults()
    await lab.children.restart("worker")


BOTH = pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])


@BOTH
async def test_while_addresses_are_assigned(fault_lab: Lab, after_effect: bool) -> None:
    await hang_on(fault_lab, "AssignPrivateIpAddresses", after_effect=after_effect)
    for _ in range(3):
        await fault_lab.add_pod("node-1")
    await caught(fault_lab, "AssignPrivateIpAddresses")
    await whole(fault_lab)


@BOTH
@pytest.mark.parametrize(
    "action", ["CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute"]
)
async def test_while_an_interface_is_brought(fault_lab: Lab, action: str, after_effect: bool) -> None:
    await hang_on(fault_lab, action, after_effect=after_effect)
    # The primary interface of an m5.large carries nine.
    node = f"node-{secrets.token_hex(2)}"
    await fault_lab.add_node(node, {"watermarks": {"pre_allocate": 12}})
    await caught(fault_lab, action)
    await fault_lab.add_pod(node)
    await whole(fault_lab)
    pool = (await fault_lab.pools())[node]
    assert len(pool.interfaces) == 2


@BOTH
async def test_while_addresses_are_released(fault_lab: Lab, after_effect: bool) -> None:
    pods = [await fault_lab.add_pod("node-1") for _ in range(5)]
    await whole(fault_lab)
    await hang_on(fault_lab, "UnassignPrivateIpAddresses", after_effect=after_effect)
    for pod in pods[1:]:
        await fault_lab.pods.stop(pod)
    await caught(fault_lab, "UnassignPrivateIpAddresses")
    await fault_lab.add_pod("node-1")
    await whole(fault_lab)
