"""Listings of the whole account: merged page by page, never in place of what is known. And what they show as leaked.

A listing is as old as its beginning, by this service's clock: what a worker changed later, or is changing, is newer and
left alone. A node is never dropped because a listing lacks its instance; the instance is read by itself first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ipam.capacity import Exhaustion, FreeTrend
from ipam.config import IpamConfig
from ipam.fleet import Fleet, OpenIntent
from ipam.model import CloudInterface, Inventory
from ipam.ports import Clock
from ipam.review import Reviewer
from ipam.tags import CLUSTER_TAG, INTENT_TAG


@dataclass(slots=True)
class _Listing:
    fence: int
    seen: set[str] = field(default_factory=set)
    detached: dict[str, CloudInterface] = field(default_factory=dict)
    subnets: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)


class Resync:
    """:ivar last_at: wall-clock time of the last complete listing, 0 before the first."""

    def __init__(self, config: IpamConfig, clock: Clock, fleet: Fleet, reviewer: Reviewer) -> None:
        self._config = config
        self._clock = clock
        self._fleet = fleet
        self._reviewer = reviewer
        self._listings: dict[str, _Listing] = {}
        self._leaks: dict[str, tuple[CloudInterface, float]] = {}  # id -> interface, first seen detached
        self._trends: dict[str, FreeTrend] = {}
        self.last_at = 0.0

    def page(self, opened: OpenIntent, page: Inventory) -> tuple[int, int]:
        """Merges a page; returns how many instances of ours it had and how many of them differed."""
        listing = self._listings.get(opened.intent.id)
        if listing is None or listing.fence != opened.intent.fence:
            listing = self._listings[opened.intent.id] = _Listing(opened.intent.fence)
        now = self._clock.monotonic()
        opened.lease_until = now + self._config.lease_s
        self._fleet.learn(limits=None, subnets=page.subnets, groups=page.security_groups)
        listing.subnets.update(each.id for each in page.subnets)
        listing.groups.update(each.id for each in page.security_groups)
        ours = 0
        corrected = 0
        for instance in page.instances:
            listing.seen.add(instance.id)
            pools = self._fleet.pools_of(instance.id)
            ours += bool(pools)
            differed = False
            for pool in pools:
                if pool.merged_at >= opened.claimed_at or self._leased(pool.intent_id, now):
                    continue
                differed |= self._fleet.merge_instance(pool, instance, now)
                pool.synced_at = self._clock.now()
                self._reviewer.review(pool)
            corrected += differed
        listing.detached.update({each.id: each for each in page.detached})
        if page.last:
            self._end(opened, listing, now)
        return ours, corrected

    def _end(self, opened: OpenIntent, listing: _Listing, now: float) -> None:
        self._listings.clear()
        self.last_at = self._clock.now()
        for pool in list(self._fleet.pools.values()):
            newer = max(pool.announced_at, pool.merged_at) >= opened.claimed_at
            if pool.spec.instance_id not in listing.seen and not newer and not pool.gone:
                pool.reread = True
                self._reviewer.review(pool)
        self._fleet.keep(subnets=listing.subnets, groups=listing.groups)
        self._trends = {each: self._trends.get(each) or FreeTrend() for each in self._fleet.subnets}
        for subnet_id, trend in self._trends.items():
            trend.observe(now, self._fleet.subnets[subnet_id].free)
        self._leaks = {
            each.id: (each, self._leaks.get(each.id, (each, now))[1])
            for each in listing.detached.values()
            if each.tags.get(CLUSTER_TAG) == self._config.cluster
        }

    def _leased(self, intent_id: str, now: float) -> bool:
        opened = self._fleet.intents.get(intent_id)
        return opened is not None and opened.leased(now)

    def exhaustions(self) -> dict[str, Exhaustion]:
        """By subnet, what its free counts at the ends of listings say of the time when none is left."""
        return {subnet_id: trend.exhaustion() for subnet_id, trend in self._trends.items()}

    def leaked(self) -> list[str]:
        """Interfaces of this cluster that have been detached for long and that no open intent names, oldest first."""
        now = self._clock.monotonic()
        in_use = named(self._fleet)
        old = [
            (since, interface_id)
            for interface_id, (interface, since) in self._leaks.items()
            if now - since >= self._config.leak_age_s  # seen detached for so long: no clock of the cloud's is asked
            and interface_id not in in_use
            and interface.tags.get(INTENT_TAG) not in self._fleet.intents
        ]
        return [interface_id for _, interface_id in sorted(old)[: self._config.collect_limit]]

    def forget(self, interface_ids: tuple[str, ...]) -> None:
        """They were deleted; if one was not, the next listing brings it again."""
        for interface_id in interface_ids:
            self._leaks.pop(interface_id, None)


def named(fleet: Fleet) -> set[str]:
    """Interfaces that an open intent of a node has as a step's target or result."""
    found: set[str] = set()
    for opened in fleet.intents.values():
        if opened.intent.node:
            for step in opened.intent.steps:
                found.add(step.target)
                found.add(str((step.result or {}).get("interface_id", "")))
    return found
