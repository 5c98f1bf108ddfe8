"""What is killed or refused in the middle: nothing leaks, nothing is leased twice, and the pool comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from lab.site import NodeClient, Site, eventually
from services.api.ipam.v1 import ipam_pb2 as pb

pytestmark = [pytest.mark.redis, pytest.mark.tool("setpriv")]

MakeSite = Callable[..., Awaitable[Site]]
FOUR = {"watermarks": pb.Watermarks(pre_allocate=4)}
# Two interfaces are needed, so every mutating call is made.
TWELVE = {"watermarks": pb.Watermarks(pre_allocate=12)}
SHARED = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def whole_site(shared_site: Site) -> AsyncIterator[Site]:
    """The file's site for tests that bring back to life whatever they kill; each names its nodes after itself."""
    await shared_site.ec2.reset_calls()
    yield shared_site
    await shared_site.ec2.faults()


async def assert_sound(site: Site, *nodes: NodeClient) -> None:
    """No address twice, no interface attached to nothing, and each node's pool is what the cloud has."""
    interfaces: list[dict[str, Any]] = (await site.ec2.state())["interfaces"]
    twice = {address: count for address, count in Counter(all_addresses(interfaces)).items() if count > 1}
    assert not twice
    assert [each["id"] for each in interfaces if not each["instance_id"]] == []
    for node in nodes:
        at_cloud = {address for each in interfaces if each["id"] in node.interfaces for address in each["addresses"]}
        primary = {each.primary_address for each in node.interfaces.values()}
        assert node.addresses == at_cloud - primary
        assert node.in_use <= node.addresses


def all_addresses(interfaces: list[dict[str, Any]]) -> list[str]:
    return [address for each in interfaces for address in each["addresses"]]


@SHARED
# tests/integration/faults has every call before and after its effect, tests/contract/cloud has them without processes.
@pytest.mark.parametrize(
    ("action", "after_effect"), [("AssignPrivateIpAddresses", False), ("CreateNetworkInterface", True)]
)
async def test_a_worker_killed_in_mid_call_is_followed_by_another(
    whole_site: Site, action: str, after_effect: bool
) -> None:
    instance = await whole_site.ec2.launch("m5.large")
    await whole_site.ec2.faults(fail=[{"action": action, "code": "hang", "count": 1, "after_effect": after_effect}])
    async with whole_site.node(action.lower(), instance, **TWELVE) as node:

        async def stuck() -> bool:
            return bool((await whole_site.ec2.calls())["by_action"].get(action, 0))

        await eventually(stuck, f"the worker hangs in {action}")
        await whole_site.workers["worker"].kill()
        await whole_site.start_worker("worker")
        await node.until(lambda: len(node.addresses) >= 12)
        await settled(whole_site)
        await assert_sound(whole_site, node)
        assert len(node.addresses) == 12
        assert len(await whole_site.ec2.interfaces(instance)) == 2


@SHARED
async def test_a_worker_killed_while_it_releases_is_followed_by_another(whole_site: Site) -> None:
    instance = await whole_site.ec2.launch("m5.large")
    async with whole_site.node("releasing", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        await node.use(4)
        await node.until(lambda: len(node.addresses) == 8)
        release = {"action": "UnassignPrivateIpAddresses", "code": "hang", "count": 1, "after_effect": True}
        await whole_site.ec2.faults(fail=[release])
        await node.use(1)

        async def stuck() -> bool:
            return bool((await whole_site.ec2.calls())["by_action"].get("UnassignPrivateIpAddresses", 0))

        await eventually(stuck, "the worker hangs in the release")
        await whole_site.workers["worker"].kill()
        await whole_site.start_worker("worker")
        await node.until(lambda: len(node.addresses) == 5)
        await settled(whole_site)
        await assert_sound(whole_site, node)


async def settled(site: Site) -> None:
    """All intents of nodes are closed."""

    async def closed() -> bool:
        intents = (await site.local.ListIntents(pb.ListIntentsRequest())).intents
        return not [each for each in intents if each.node]

    await eventually(closed, "all intents of nodes are closed")


@SHARED
async def test_redis_killed_and_restarted_empty_loses_no_intent(whole_site: Site) -> None:
    instance = await whole_site.ec2.launch("m5.large")
    async with whole_site.node("emptied", instance, **FOUR) as node:
        await node.until(lambda: len(node.addresses) == 4)
        whole_site.redis.kill()
        await node.use(2)
        await asyncio.sleep(0.3)  # while Redis is away, the intent has nowhere to go
        assert len(node.addresses) == 4
        whole_site.redis.start()
        await node.until(lambda: len(node.addresses) == 6)
        await assert_sound(whole_site, node)


@SHARED
async def test_redis_killed_while_a_worker_works_costs_nothing(whole_site: Site) -> None:
    await whole_site.ec2.faults(mutate_latency_s=0.3)
    instances = [await whole_site.ec2.launch("m5.large") for _ in range(4)]
    nodes = [whole_site.node(f"busy-{number}", each, **TWELVE) for number, each in enumerate(instances)]
    async with nodes[0], nodes[1], nodes[2], nodes[3]:

        async def begun() -> bool:
            return bool((await whole_site.ec2.calls())["mutating"] > 2)

        await eventually(begun, "the workers have begun")
        whole_site.redis.kill()
        whole_site.redis.start()
        for node in nodes:
            await node.until(lambda node=node: len(node.addresses) >= 12)  # type: ignore[misc]
        await settled(whole_site)
        await assert_sound(whole_site, *nodes)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def stored_site(request: pytest.FixtureRequest, make_site: MakeSite) -> Site:
    if request.param == "sqlite":
        return await make_site()
    return await make_site(store=request.getfixturevalue("postgres_url"), ipam={"replica": "ipam-1"})


async def test_ipam_killed_under_load_goes_on_from_its_store(stored_site: Site) -> None:
    site = stored_site
    await site.ec2.faults(mutate_latency_s=0.1)
    instances = [await site.ec2.launch("m5.large") for _ in range(3)]
    nodes = [site.node(f"n{number}", each, **TWELVE) for number, each in enumerate(instances)]
    async with nodes[0], nodes[1], nodes[2]:

        async def begun() -> bool:
            return bool((await site.ec2.calls())["mutating"] > 2)

        await eventually(begun, "the workers have begun")
        await site.kill_ipam()
        await site.start_ipam()
        for node in nodes:
            await node.until(lambda node=node: len(node.addresses) >= 12)  # type: ignore[misc]
            await node.use(5)
        for node in nodes:
            await node.until(lambda node=node: len(node.addresses) >= 17)  # type: ignore[misc]
        await settled(site)
        await assert_sound(site, *nodes)
        assert await site.stop_ipam() == 0


async def test_an_unknown_instance_type_is_explained(ipam_site: Site) -> None:
    instance = await ipam_site.ec2.launch("m5.large")
    await ipam_site.ec2.faults(fail=[{"action": "DescribeInstanceTypes", "code": "InvalidInstanceType", "count": 1000}])
    async with ipam_site.node("n1", instance, **FOUR) as node:
        await until_explained(ipam_site, "n1", "m5.large", "limits")
        assert not node.addresses
        await ipam_site.stop_ipam()
        limits = ipam_site.folder / "limits.toml"
        limits.write_text('["m5.large"]\ninterfaces = 3\nipv4_per_interface = 10\n')
        await ipam_site.start_ipam(limits_file=str(limits))
        await node.until(lambda: len(node.addresses) == 4)


async def test_a_missing_security_group_is_explained(ipam_site: Site) -> None:
    instance = await ipam_site.ec2.launch("m5.large")
    spec = {**TWELVE, "security_group_tags": {"role": "pods"}}
    async with ipam_site.node("n1", instance, **spec) as node:
        await until_explained(ipam_site, "n1", "security", "role")
        assert len(node.interfaces) <= 1


async def test_a_full_subnet_is_explained_and_passed_over(make_site: MakeSite) -> None:
    site = await make_site(ec2=["--vpc-cidr", "10.0.0.0/16", "--subnet", "a=10.0.0.0/28"])
    instance = await site.ec2.launch("m5.large")
    async with site.node("n1", instance, watermarks=pb.Watermarks(pre_allocate=20)):
        await until_explained(site, "n1", "subnet: all subnets", "zone eu-west-1a", "full", "add a subnet")
        await assert_sound(site)


async def test_denied_credentials_end_in_a_dead_letter_that_can_be_replayed(ipam_site: Site) -> None:
    instance = await ipam_site.ec2.launch("m5.large")
    await ipam_site.ec2.faults(fail=[{"action": "mutate", "code": "UnauthorizedOperation", "count": 1}])
    async with ipam_site.node("n1", instance, **FOUR) as node:

        async def dead() -> bool:
            return bool((await ipam_site.local.ListDeadLetters(pb.ListDeadLettersRequest())).dead_letters)

        await eventually(dead, "a dead letter")
        letter = (await ipam_site.local.ListDeadLetters(pb.ListDeadLettersRequest())).dead_letters[0]
        assert "UnauthorizedOperation" in letter.why
        shown = (await ipam_site.local.GetDeadLetter(pb.GetDeadLetterRequest(id=letter.id))).dead_letter
        assert shown.intent.node == "n1"
        await ipam_site.local.ReplayDeadLetter(pb.ReplayDeadLetterRequest(id=letter.id))
        await node.until(lambda: len(node.addresses) == 4)


async def test_a_throttling_cloud_slows_calls_and_never_fails_pods(ipam_site: Site) -> None:
    await ipam_site.ec2.faults(throttle={"mutate": {"rate": 5, "burst": 2}})
    instances = [await ipam_site.ec2.launch("m5.large") for _ in range(6)]
    nodes = [ipam_site.node(f"n{number}", each, **TWELVE) for number, each in enumerate(instances)]
    async with nodes[0], nodes[1], nodes[2], nodes[3], nodes[4], nodes[5]:
        for node in nodes:
            await node.until(lambda node=node: len(node.addresses) >= 12, timeout_s=60.0)  # type: ignore[misc]
        assert "plimsoll_budget_throttles_total" in await ipam_site.metrics("worker")
        assert (await ipam_site.ec2.calls())["throttled"] > 0
        await settled(ipam_site)
        await assert_sound(ipam_site, *nodes)


async def until_explained(site: Site, node: str, *words: str) -> None:
    text = ""

    async def told() -> bool:
        nonlocal text
        try:
            text = await site.explain(node)
        except Exception:  # noqa: BLE001 - the node may not have announced itself yet
            return False
        return all(word in text for word in words)

    try:
        await eventually(told, f"explained with {words}", timeout_s=15.0)
    except Exception as error:
        raise AssertionError(f"{words} not in:\n{text}") from error
