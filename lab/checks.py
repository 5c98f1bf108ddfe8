"""What `--once` proves of a running lab, check by check.

Each check is a coroutine that returns a few words on success and raises `Failed` otherwise. They run in order: the
later ones kill every central process and bring them back.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from grpc.aio import AioRpcError

from lab.lab import Lab, together
from lab.outside import source_seen_from
from lab.pods import Pod
from lab.state import LabError
from services.api.ipam.v1 import ipam_pb2

MAX_PAIRS: Final = 400
OFFLINE_PODS_PER_NODE: Final = 2


class Failed(Exception):
    """A check did not hold; the text says what was seen."""


@dataclass(frozen=True, slots=True)
class Result:
    """One check's outcome. `seconds` is how long it took."""

    name: str
    ok: bool
    detail: str
    seconds: float


async def run_all(lab: Lab, told: Callable[[str], None]) -> list[Result]:
    """Runs every check; the first that fails ends the run, as later ones build on it."""
    results: list[Result] = []
    for name, check in CHECKS:
        told(name)
        began = time.monotonic()
        try:
            detail, ok = await check(lab), True
        except (Failed, LabError, OSError, AioRpcError) as err:
            detail, ok = str(err), False
        results.append(Result(name, ok, detail, time.monotonic() - began))
        if not ok:
            break
    return results


async def between_marks(lab: Lab) -> str:
    pools = await lab.settled()
    attached, used = (sum(getattr(pool, name) for pool in pools.values()) for name in ("attached", "in_use"))
    return f"{len(pools)} nodes, {attached} addresses attached, {used} in use"


async def addresses_assigned(lab: Lab) -> str:
    """Every pod has an address of its own, and the cloud assigned it to an interface of its node."""
    owners: dict[str, str] = {}
    for port in await lab.ports():
        owners |= dict.fromkeys(port.single_addresses, port.instance_id)
    holders: dict[str, str] = {}
    for pod in lab.pods.running.values():
        if pod.address in holders:
            raise Failed(f"{pod.address} is held by {holders[pod.address]} and {pod.name}")
        holders[pod.address] = pod.name
        node = lab.nodes[pod.node]
        if owners.get(pod.address) != node.instance_id:
            raise Failed(
                f"{pod.name} holds {pod.address}, assigned to {owners.get(pod.address, 'nobody')}, "
                f"but runs on {pod.node} ({node.instance_id})"
            )
    return f"{len(holders)} pods, {len(holders)} addresses"


async def pools_match_cloud(lab: Lab) -> str:
    """What IPAM believes of each node's secondary addresses, and of their use, is what is."""
    assigned: dict[str, set[str]] = {place.instance_id: set() for place in lab.nodes.values()}
    for port in await lab.ports():
        assigned.setdefault(port.instance_id, set()).update(port.single_addresses - {port.primary_address})
    pods, pools = lab.pods.by_node(), await lab.pools()
    for name, place in lab.nodes.items():
        pool, service = pools[name], place.cloud.service
        told = {each.address: each.state for port in pool.interfaces for each in port.addresses}
        if told.keys() != assigned[place.instance_id]:
            differing = sorted(told.keys() ^ assigned[place.instance_id])
            raise Failed(f"{name}: {service} and the cloud disagree on {', '.join(differing)}")
        used = {address for address, state in told.items() if state == ipam_pb2.ADDRESS_STATE_IN_USE}
        held = {pod.address for pod in pods.get(name, ())}
        if used != held:
            raise Failed(f"{name}: {service} knows {sorted(used)} in use, its pods hold {sorted(held)}")
    return f"{sum(map(len, assigned.values()))} addresses"


async def whole(lab: Lab, *, timeout_s: float = 60.0) -> None:
    """Waits until everything is as it should be; what must never be otherwise is looked at once. Raises Failed.

    No address has two holders and no pod an address of somebody else, now; soon every node is between its marks, IPAM
    and the cloud agree, and no interface is loose; and the pods reach each other.
    """
    why = ""
    await addresses_assigned(lab)

    async def look() -> bool:
        nonlocal why
        try:
            await pools_match_cloud(lab)
            await no_leaked_interface(lab)
        except Failed as err:
            why = str(err)
            return False
        return True

    await lab.settled(timeout_s=timeout_s)

    async def explain() -> str:
        return why

    await lab.until(look, "IPAM and the cloud to agree", timeout_s=timeout_s, explain=explain)
    await addresses_assigned(lab)
    await pods_reach_each_other(lab)


async def pods_reach_each_other(lab: Lab) -> str:
    pairs = sample_pairs(list(lab.pods.running.values()))
    across = sum(one.node != other.node for one, other in pairs)
    answers = await asyncio.gather(*(lab.pods.pinger(one).ping(other.address) for one, other in pairs))
    lost = [(one, other) for (one, other), answered in zip(pairs, answers, strict=True) if not answered]
    if lost:
        one, other = lost[0]
        raise Failed(
            f"{len(lost)} of {len(pairs)} pings unanswered; first: {one.name} ({one.address}, {one.node}) -> "
            f"{other.name} ({other.address}, {other.node})"
        )
    return f"{across} pairs across nodes, {len(pairs) - across} within a node"


async def pods_reach_outside(lab: Lab) -> str:
    """Each pod is seen outside with its own address, or with one of its node's if they masquerade."""
    pods = list(lab.pods.running.values())
    own: dict[str, set[str]] = {}
    for port in await lab.ports():
        own.setdefault(port.instance_id, set()).add(port.primary_address)
    seen = await asyncio.gather(*(source_seen_from(pod.namespace, lab.outside.address) for pod in pods))
    for pod, source in zip(pods, seen, strict=True):
        right = own[lab.nodes[pod.node].instance_id] if lab.options.masquerade else {pod.address}
        if source not in right:
            raise Failed(f"{pod.name} ({pod.address}) was seen outside as {source}")
    whose = "an address of its node" if lab.options.masquerade else "its own address"
    return f"{len(pods)} pods, each with {whose}"


async def programs_carry_pods(lab: Lab) -> str:
    """Each node's programs know each of its pods, and are attached; with plain routing there are none."""
    if lab.options.datapath != "ebpf":
        return "plain routing, as asked for"
    pods = lab.pods.by_node()
    attached = 0
    for name in lab.nodes:
        status = await lab.datapath(name)
        held = len(pods.get(name, ()))
        hooks = [one for program in status.programs if program.name == "from_pod" for one in program.attachments]
        if status.endpoints != held or len(hooks) != held:
            raise Failed(f"{name}: {held} pods, the programs know {status.endpoints} and are at {len(hooks)}")
        if status.problems:
            raise Failed(f"{name}: {status.problems[0].subject}: {status.problems[0].message}")
        attached += len(hooks)
    return f"at {attached} pods on {len(lab.nodes)} nodes"


async def no_leaked_interface(lab: Lab) -> str:
    interfaces = [row for cloud in lab.clouds.values() for row in (await cloud.admin.document())["interfaces"]]
    loose = [row["id"] for row in interfaces if not row["instance_id"]]
    if loose:
        raise Failed(f"attached to nothing: {', '.join(loose)}")
    return f"{len(interfaces)} interfaces, all attached"


async def nothing_spoofed(lab: Lab) -> str:
    drops = await lab.fabric.drops()
    if drops.spoofed:
        raise Failed(f"the VPC refused {drops.spoofed} packets whose source their interface does not own")
    return f"{drops.undelivered} packets to addresses of nobody"


async def central_services_away(lab: Lab) -> str:
    """Pods keep talking, and new ones start from what their node holds."""
    pools = await lab.pools(named=False)
    await lab.stop_central()
    await pods_reach_each_other(lab)
    new: list[Pod] = []
    for name, pool in pools.items():
        free = pool.attached - pool.in_use - pool.cooling
        starts = (lab.add_pod(name, timeout_s=0.0) for _ in range(min(OFFLINE_PODS_PER_NODE, free)))
        new += await together(*starts)
    await pods_reach_each_other(lab)
    await pods_reach_outside(lab)
    return f"{len(new)} pods started without them"


async def central_services_back(lab: Lab) -> str:
    await lab.start_central()
    pools = await lab.settled()
    used = sum(pool.in_use for pool in pools.values())
    if used != len(lab.pods.running):
        raise Failed(f"IPAM knows {used} addresses in use, {len(lab.pods.running)} pods run")
    await addresses_assigned(lab)
    return f"all {used} leases known again"


async def pods_end(lab: Lab) -> str:
    """Ending pods gives addresses back to the node, and what is above the marks back to the cloud."""
    before = sum(pool.attached for pool in (await lab.pools()).values())
    ending = [pod for pods in lab.pods.by_node().values() for pod in pods[len(pods) // 2 :]]
    await together(*(lab.pods.stop(pod) for pod in ending))
    pools = await lab.settled()
    after = sum(pool.attached for pool in pools.values())
    return f"{len(ending)} pods ended; {before} addresses attached before, {after} after"


CHECKS: Final[Sequence[tuple[str, Callable[[Lab], Awaitable[str]]]]] = (
    ("each node between its marks", between_marks),
    ("each pod's address assigned to its node", addresses_assigned),
    ("pods reach each other", pods_reach_each_other),
    ("pods reach the outside", pods_reach_outside),
    ("programs carry the pods", programs_carry_pods),
    ("IPAM and the cloud agree", pools_match_cloud),
    ("no leaked interface", no_leaked_interface),
    ("central services killed: pods go on", central_services_away),
    ("central services back: all converges", central_services_back),
    ("pods reach each other still", pods_reach_each_other),
    ("half of the pods ended", pods_end),
    ("IPAM and the cloud agree still", pools_match_cloud),
    ("no leaked interface after all", no_leaked_interface),
    ("no packet with a foreign source", nothing_spoofed),
)


def sample_pairs(pods: Sequence[Pod], limit: int = MAX_PAIRS) -> list[tuple[Pod, Pod]]:
    """All ordered pairs, or a sample of `limit` in which each pod sends to its neighbour in the list at least."""
    pairs = list(itertools.permutations(pods, 2))
    if len(pairs) <= limit:
        return pairs
    ring: Iterable[tuple[Pod, Pod]] = zip(pods, [*pods[1:], pods[0]], strict=True)
    return [*ring, *random.sample(pairs, max(0, limit - len(pods)))]
