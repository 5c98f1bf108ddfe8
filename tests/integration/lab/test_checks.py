"""The lab's checks see what is wrong: each is shown a lab in which it must not hold."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab import checks
from lab.checks import Failed
from lab.lab import Lab
from lab.options import LabOptions
from lab.probe import Pinger

pytestmark = [
    pytest.mark.root,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.tool("nsenter", "setpriv"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def checked_lab() -> AsyncIterator[Lab]:
    """Two nodes with a pod each. Resyncs are rare, so that damage stays until it was looked at."""
    options = LabOptions(name=f"c{secrets.token_hex(3)}", nodes=2, pods=2, resync_interval_s=3600.0)
    async with Lab(options) as lab:
        await lab.settled()
        await lab.add_pods(2)
        yield lab


async def test_all_hold_at_first(checked_lab: Lab) -> None:
    await checks.whole(checked_lab)
    await checks.pods_reach_outside(checked_lab)
    await checks.nothing_spoofed(checked_lab)


async def test_a_loose_interface_is_seen(checked_lab: Lab) -> None:
    subnet = (await checked_lab.ec2.document())["subnets"][0]["id"]
    answer = await checked_lab.ec2.call("CreateNetworkInterface", SubnetId=subnet)
    found = re.search(r"<networkInterfaceId>(eni-\w+)<", answer)
    assert found is not None
    with pytest.raises(Failed, match=found[1]):
        await checks.no_leaked_interface(checked_lab)
    await checked_lab.ec2.call("DeleteNetworkInterface", NetworkInterfaceId=found[1])
    await checks.no_leaked_interface(checked_lab)


async def test_a_foreign_source_is_seen(checked_lab: Lab) -> None:
    one, other = checked_lab.pods.running.values()
    node = checked_lab.nodes[one.node]
    ports = (await checked_lab.ec2.state()).ports.values()
    gateway = next(port.gateway for port in ports if port.instance_id == node.instance_id)
    with Pinger(node.namespace) as pinger:
        assert not await pinger.ping(gateway, source=other.address, timeout_s=0.2, attempts=1)
    with pytest.raises(Failed, match="refused 1 packet"):
        await checks.nothing_spoofed(checked_lab)


async def test_an_address_taken_away_from_a_pod_is_seen(checked_lab: Lab) -> None:
    one, other = checked_lab.pods.running.values()
    state = await checked_lab.ec2.state()
    owner = next(port for port in state.ports.values() if one.address in port.addresses)
    await checked_lab.ec2.call(
        "UnassignPrivateIpAddresses", NetworkInterfaceId=owner.id, PrivateIpAddress__1=one.address
    )
    await checked_lab.fabric.wait_applied((await checked_lab.ec2.state()).revision, "aws")
    with pytest.raises(Failed, match=f"{one.address}, assigned to nobody"):
        await checks.addresses_assigned(checked_lab)
    with pytest.raises(Failed, match=re.escape(f"{other.name} ({other.address}")):
        await checks.pods_reach_each_other(checked_lab)
    with pytest.raises(Failed, match="disagree"):
        await checks.pools_match_cloud(checked_lab)
    assert (await checked_lab.fabric.drops()).undelivered > 0
