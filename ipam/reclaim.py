"""Addresses that other nodes can spare, for a node whose pods wait while the subnets in its reach are empty.

What nodes keep free above their marks comes back by itself, after a delay. What they keep within their marks does not,
and with an empty subnet it is of more use to a pod that waits than to one that may come. So they are asked to give it
back at once, by the same handshake as any release, down to one free address each; and they do not fetch it again before
those who wait had the time to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from ipam.fleet import Fleet
from ipam.model import Usage
from ipam.plan import pod_interfaces
from ipam.pools import Pool
from ipam.release import HANDSHAKE_S

KEPT: Final = 1
OWES_S: Final = 2 * HANDSHAKE_S


def reclaim(fleet: Fleet, starving: Pool, wanted: int, reach: Collection[str], now: float) -> int:
    """Has other nodes owe up to `wanted` addresses of the subnets in `reach`; returns how many are owed there by now.

    Those with most to spare give first. `now` is monotonic seconds.
    """
    owed = 0
    spare: list[tuple[int, str, Pool]] = []
    for pool in fleet.pools.values():
        if pool is starving:
            continue
        if owes(pool, now):
            owed += pool.owes if pool.owes_in & frozenset(reach) else 0
        elif (count := _spare(pool, reach)) > 0:
            spare.append((count, pool.spec.name, pool))
    for count, _, pool in sorted(spare, key=lambda each: (-each[0], each[1])):
        if owed >= wanted:
            break
        pool.owes = min(count, wanted - owed)
        pool.owes_in = frozenset(reach)
        pool.owes_until = now + OWES_S
        pool.excess_since = None
        owed += pool.owes
        fleet.look(pool, now)
    return owed


def owes(pool: Pool, now: float) -> bool:
    """Whether the node has been asked to give back, lately."""
    return now < pool.owes_until


def _spare(pool: Pool, reach: Collection[str]) -> int:
    """Free single addresses in these subnets, but for the last. Prefixes go whole or not at all, so they stay."""
    if not pool.connected or pool.usage is None or pool.instance is None or not pool.spec.release_excess:
        return 0
    counts = pool.counts()
    if counts.pending or pool.leaving:
        return 0
    usage = pool.usage or Usage()
    busy = usage.in_use | usage.cooling | usage.ready
    there = sum(
        address not in busy and address not in pool.states
        for interface in pod_interfaces(pool.spec, pool.instance)
        if interface.subnet_id in reach
        for address in interface.addresses
    )
    return min(there, counts.attached - counts.used - KEPT)
