"""The cloud cannot give what is needed: a subnet that is full, a security group that does not exist.

The node keeps what it has, `explain` says why it gets no more, and all is well once somebody mends the cloud.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from lab.checks import pods_reach_each_other, whole
from lab.lab import Lab
from lab.options import LabOptions
from lab.pods import TRY_AGAIN_LATER, CniError
from services.api.ipam.v1 import ipam_pb2

pytestmark = [
    pytest.mark.root,
    pytest.mark.redis,
    pytest.mark.tool("nsenter", "setpriv"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
]

FAST: dict[str, object] = {
    "release_delay_s": 0.5,
    "coalesce_s": 0.0,
    "resync_interval_s": 1.0,
    "collect_interval_s": 1.0,
    "leak_age_s": 2.0,
    "sweep_interval_s": 0.3,
    "retry_base_s": 0.1,
    "retry_cap_s": 0.5,
    "block_s": 1.0,
    "max_attempts": 0,
}
MakeLab = Callable[..., Awaitable[Lab]]


@pytest_asyncio.fixture(loop_scope="session")
async def lab_of() -> AsyncIterator[MakeLab]:
    """Starts a lab of its own with the options given."""
    async with AsyncExitStack() as stack:

        async def make(*, ipam: dict[str, object], **options: Any) -> Lab:
            chosen = LabOptions(
                name=f"short-{secrets.token_hex(3)}", settings={"ipam-aws": {**FAST, **ipam}}, pods=0, **options
            )
            return await stack.enter_async_context(Lab(chosen))

        yield make


async def told_why(lab: Lab, node: str, subject: str) -> str:
    """Waits until `explain` has a problem of that subject and returns its message."""

    async def look() -> str:
        answer = await lab.ipam.Explain(ipam_pb2.ExplainRequest(node=node), timeout=5.0)
        problems = [each for each in answer.findings if each.level == ipam_pb2.FINDING_LEVEL_PROBLEM]
        return next((each.message for each in problems if each.subject == subject), "")

    return await lab.until(look, f"an explanation of {subject} for {node}")


async def test_a_subnet_that_is_full_and_then_has_a_neighbour(lab_of: MakeLab) -> None:
    # 11 addresses: one primary for each node, and nine for twice eight.
    lab = await lab_of(nodes=2, pre_allocate=8, ipam={}, fake_ec2=("--subnet", "a=10.0.0.0/28"))

    async def exhausted() -> bool:
        subnets = (await lab.ec2.document())["subnets"]
        return all(subnet["free"] == 0 for subnet in subnets)

    await lab.until(exhausted, "the subnet to be full")
    short = await lab.until(lambda: needy(lab), "a node in need")
    assert "subnet-" in await told_why(lab, short, "subnet")
    (full,) = set(lab.nodes) - {short}
    pods = [await lab.add_pod(node) for node in (short, full, full)]
    with pytest.raises(CniError) as refused:
        await lab.add_pod(short, timeout_s=0.0)
    assert refused.value.code == TRY_AGAIN_LATER
    await pods_reach_each_other(lab)

    vpc_id = (await lab.ec2.document())["vpcs"][0]["id"]
    zone = (await lab.ec2.document())["subnets"][0]["zone"]
    await lab.ec2.call("CreateSubnet", VpcId=vpc_id, CidrBlock="10.0.1.0/24", AvailabilityZone=zone)
    await whole(lab)
    assert len(lab.pods.running) == len(pods)


async def needy(lab: Lab) -> str:
    return next((name for name, pool in (await lab.pools()).items() if pool.needed), "")


async def test_a_full_subnet_that_others_leave(lab_of: MakeLab) -> None:
    lab = await lab_of(nodes=1, pre_allocate=4, ipam={}, fake_ec2=("--subnet", "a=10.0.0.0/27"))
    await whole(lab)
    async with occupied(lab):
        pods = [await lab.add_pod("node-1") for _ in range(4)]
        assert "subnet-" in await told_why(lab, "node-1", "subnet")
    await whole(lab)
    assert {pod.address for pod in pods} == {pod.address for pod in lab.pods.running.values()}


@asynccontextmanager
async def occupied(lab: Lab) -> AsyncIterator[None]:
    """Somebody else's interfaces take all that is free in the only subnet."""
    subnet = (await lab.ec2.document())["subnets"][0]
    answer = await lab.ec2.call(
        "CreateNetworkInterface", SubnetId=subnet["id"], SecondaryPrivateIpAddressCount=str(subnet["free"] - 1)
    )
    found = re.search(r"<networkInterfaceId>(eni-\w+)<", answer)
    assert found is not None
    yield
    await lab.ec2.call("DeleteNetworkInterface", NetworkInterfaceId=found[1])


async def test_a_security_group_that_somebody_makes_at_last(lab_of: MakeLab) -> None:
    # More than the primary interface holds, so that a second one, with groups, is needed.
    lab = await lab_of(nodes=1, pre_allocate=12, ipam={"security_group_tags": {"role": "pods"}})
    why = await told_why(lab, "node-1", "security-group")
    assert "role" in why
    await lab.add_pod("node-1")

    vpc_id = (await lab.ec2.document())["vpcs"][0]["id"]
    await lab.ec2.call(
        "CreateSecurityGroup",
        GroupName="pods",
        GroupDescription="of pods",
        VpcId=vpc_id,
        TagSpecification__1__ResourceType="security-group",
        TagSpecification__1__Tag__1__Key="role",
        TagSpecification__1__Tag__1__Value="pods",
    )
    await whole(lab)
