"""Addresses that other nodes can spare, for nodes whose pods wait while the subnets in their reach are empty.

What nodes keep free above their marks comes back by itself, after a delay. What they keep within their marks does not,
and with an empty subnet it is of more use to a pod that waits than to one that may come. So they are asked to give it
back at once, by the same handshake as any release, down to one free address each; and they do not fetch it again before
those who wait had the time to.

A subnet runs empty for many nodes at once, so they are counted together: what was asked for is compared with what all
of them want there, and the fleet is looked through for it once a second at most, however often they say that they wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from ipam.asked import Want
from ipam.fleet import Fleet
from ipam.model import Usage
from ipam.plan import pod_interfaces
from ipam.pools import Pool
from ipam.release import HANDSHAKE_S

KEPT: Final = 1
OWES_S: Final = 2 * HANDSHAKE_S
NOTHING: Final = Usage()
WANT_S: Final = 30.0  # who waits is reviewed more often than that
LOOK_S: Final = 1.0
CHOICE: Final = 16  # givers to choose from, and how many times what is missing they have together


def reclaim(fleet: Fleet, starving: Pool, wanted: int, reach: Collection[str], now: float) -> int:
    """Has other nodes owe what is wanted in the subnets in `reach`, by `starving` and by all others who wait there;
    returns how many addresses are owed there by now.

    Those with most to spare give first. `now` is monotonic seconds.
    """
    asked, subnets = fleet.asked, frozenset(reach)
    counts = starving.counts()
    wanted = min(wanted, counts.pending - max(counts.attached - counts.used, 0))  # what is free only has to reach them
    if wanted <= 0:
        asked.wants.pop(starving.spec.name, None)
        return 0
    asked.wants[starving.spec.name] = Want(wanted, subnets, now)
    missing = _wanted(fleet, subnets, now)
    owed = 0
    for pool, can in _givers(fleet, starving, subnets, now):
        owed += min(pool.owes, can)
        if can > pool.owes and owed < missing:
            more = min(can - pool.owes, missing - owed)
            _ask(fleet, pool, pool.owes + more, pool.owes_in, now)
            owed += more
    if owed >= missing:
        return owed
    if now < asked.looked_at + LOOK_S:
        fleet.look(starving, asked.looked_at + LOOK_S)
        return owed
    asked.looked_at = now
    found: list[tuple[int, str, Pool]] = []
    seen = 0
    for pool in fleet.pools.values():
        if pool is not starving and not owes(pool, now) and (count := spare(pool, subnets)) > 0:
            found.append((count, pool.spec.name, pool))
            seen += count
            if len(found) >= CHOICE and seen >= CHOICE * (missing - owed):
                break
    for count, _, pool in sorted(found, key=lambda each: (-each[0], each[1])):
        if owed >= missing:
            break
        _ask(fleet, pool, min(count, missing - owed), subnets, now)
        owed += pool.owes
    return owed


def _ask(fleet: Fleet, pool: Pool, count: int, subnets: frozenset[str], now: float) -> None:
    pool.owes = count
    pool.owes_in = subnets
    pool.owes_until = now + OWES_S
    pool.excess_since = None
    fleet.asked.givers.add(pool.spec.name)
    fleet.look(pool, now)


def owes(pool: Pool, now: float) -> bool:
    """Whether the node has been asked to give back, lately."""
    return now < pool.owes_until


def _wanted(fleet: Fleet, reach: frozenset[str], now: float) -> int:
    """What all who wait want in these subnets. Who has not said so lately, or is away, waits no more."""
    wants = fleet.asked.wants
    for name, want in list(wants.items()):
        pool = fleet.pools.get(name)
        usage = pool.usage if pool is not None and pool.connected else None
        if usage is None or not usage.pending_pods or now - want.said_at > WANT_S:
            del wants[name]
    return sum(each.addresses for each in wants.values() if not reach.isdisjoint(each.reach))


def _givers(fleet: Fleet, starving: Pool, reach: frozenset[str], now: float) -> Iterator[tuple[Pool, int]]:
    """Those who were asked for addresses of these subnets lately, with what they can still give: what they owe may be
    used by now, and they may have more than was asked for."""
    for name in list(fleet.asked.givers):
        pool = fleet.pools.get(name)
        if pool is None or not owes(pool, now):
            fleet.asked.givers.discard(name)
        elif pool is not starving and not reach.isdisjoint(pool.owes_in):
            usage = pool.usage or NOTHING
            leaving = sum(each not in usage.in_use and each not in usage.cooling for each in pool.states)
            yield pool, leaving + max(spare(pool, pool.owes_in), 0)


def spare(pool: Pool, reach: Collection[str]) -> int:
    """Free single addresses in these subnets, but for the last. Prefixes go whole or not at all, so they stay."""
    if not pool.connected or pool.usage is None or pool.instance is None or not pool.spec.release_excess:
        return 0
    if pool.usage.pending_pods or pool.leaving:
        return 0
    near = [each for each in pod_interfaces(pool.spec, pool.instance) if each.subnet_id in reach]
    busy = pool.usage.in_use | pool.usage.cooling | pool.usage.ready if near else frozenset()
    there = sum(address not in busy and address not in pool.states for each in near for address in each.addresses)
    if there <= 0:
        return 0
    counts = pool.counts()
    return min(there, counts.attached - counts.used - KEPT)
