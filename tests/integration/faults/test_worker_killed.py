"""A worker killed by SIGKILL in the middle of each cloud call, before and after the call took effect.

The fake cloud hangs on the call, having done it or not; the worker is killed; another takes over. No interface leaks,
no address is lost or leased twice, and the pool comes back between its marks.
"""

from __future__ import annotations

import secrets

import pytest

from ipam.tags import CLUSTER_TAG
from lab.checks import whole
from lab.lab import Lab

pytestmark = [
    pytest.mark.root,
    pytest.mark.redis,
    pytest.mark.tool("nsenter", "setpriv"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
]


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


# The cluster's name when nobody sets one.
CLUSTER = "plimsoll"
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


@BOTH
async def test_while_a_leaked_interface_is_deleted(fault_lab: Lab, after_effect: bool) -> None:
    await hang_on(fault_lab, "DeleteNetworkInterface", after_effect=after_effect)
    subnet = (await fault_lab.ec2.document())["subnets"][0]
    for owner in (CLUSTER, "another-cluster"):
        await fault_lab.ec2.call(
            "CreateNetworkInterface",
            SubnetId=subnet["id"],
            TagSpecification__1__ResourceType="network-interface",
            TagSpecification__1__Tag__1__Key=CLUSTER_TAG,
            TagSpecification__1__Tag__1__Value=owner,
        )
    await caught(fault_lab, "DeleteNetworkInterface")
    foreign = await fault_lab.until(lambda: only_foreign(fault_lab), "the leaked interface to be deleted")
    await fault_lab.ec2.call("DeleteNetworkInterface", NetworkInterfaceId=foreign)
    await whole(fault_lab)


async def only_foreign(lab: Lab) -> str:
    """Id of the other cluster's interface once it is the only one that is attached to nothing."""
    loose = [row for row in (await lab.ec2.document())["interfaces"] if not row["instance_id"]]
    assert any(row["tags"][CLUSTER_TAG] != CLUSTER for row in loose), "it was not ours to delete"
    return str(loose[0]["id"]) if len(loose) == 1 else ""
