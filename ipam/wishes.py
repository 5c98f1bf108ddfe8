"""The marks in force for each node: its own or the service's, by target, by demand, or of a node that warms up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ipam.config import IpamConfig
from ipam.fleet import Fleet
from ipam.forecast import Bounds, Estimate, Forecast
from ipam.model import Limits, Policy, Usage, Watermarks, members
from ipam.plan import pod_interfaces
from ipam.pools import Counts, Pool
from ipam.ports import Clock
from ipam.rehearsal import Rules
from ipam.targets import PREFIX_SIZE, ask_units, excess_units, marks_of, target, unit_of, units, warming

PLAIN = Policy()
AGE_S = 5.0  # how long computed marks are used, unless the node says something new
FIRST_GUESS_S = 5.0
LEAST_S = 0.01
STEP = 1 / 16
EXCEEDED = 0.2


class TimeToAddress:
    """The time from a deficit until its addresses are known, that one in five exceeds. Seconds.

    No mean with its deviation: one call in a hundred that takes ten times as long would double that.
    """

    def __init__(self) -> None:
        self.seconds = FIRST_GUESS_S
        self._guessed = True

    def arrived(self, seconds: float) -> None:
        if self._guessed:
            self.seconds, self._guessed = seconds, False
        share = 1.0 - EXCEEDED if seconds > self.seconds else -EXCEEDED
        self.seconds = max(self.seconds * (1.0 + STEP * share), LEAST_S)


class Wishes:
    """:param limits: of a pool's instance type, while they are known."""

    def __init__(self, config: IpamConfig, clock: Clock, fleet: Fleet, limits: Callable[[Pool], Limits | None]) -> None:
        self._config = config
        self._clock = clock
        self._fleet = fleet
        self._limits = limits
        # People's days are the wall clock's, but its jumps are no time in which pods did not start.
        self._origin_s = clock.now() - clock.monotonic()
        self.time_to_address = TimeToAddress()
        self._rules = Rules(config.coalesce_s, config.urgent_fraction, config.release_delay_s)

    def hear(self, pool: Pool, before: Usage | None, usage: Usage) -> None:
        """What the node's newest usage says of demand. The first one of a connection is no demand, but a state.

        A pod that waits is a start, and none any more when it has got its address.
        """
        if not pool.spec.policy.follow_demand:
            pool.forecast = None
            return
        starts = returns = 0
        if before is not None:
            starts = len(usage.in_use - before.in_use) + usage.pending_pods - before.pending_pods
            returns = len((before.in_use | before.cooling) - usage.in_use - usage.cooling)
        self.observe(pool, max(starts, 0), returns)

    def observe(self, pool: Pool, starts: int, returns: int) -> None:
        """Pods of a node whose marks follow demand, and addresses that have cooled after one."""
        policy = pool.spec.policy
        forecast = pool.forecast
        if forecast is None:
            rules = replace(self._rules, above=pool.spec.watermarks.max_above_watermark)
            forecast = pool.forecast = Forecast(Bounds(policy.demand_least, policy.demand_most), rules)
            pool.wish_until = -math.inf
        elif forecast.bounds.most != policy.demand_most or forecast.bounds.least != policy.demand_least:
            forecast.bounds = Bounds(policy.demand_least, policy.demand_most)  # what was learnt stays
        if starts:
            pool.wish_until = -math.inf
        forecast.observe(self._now_s(), starts, returns, self.time_to_address.seconds)

    def _now_s(self) -> float:
        return self._origin_s + self._clock.monotonic()

    def marks(self, pool: Pool) -> Watermarks:
        """The marks in force now."""
        wish = pool.wish
        if wish is not None and pool.wished_for is pool.spec and self._clock.monotonic() < pool.wish_until:
            return wish.marks
        policy = pool.spec.policy
        plain = not policy.follow_demand and policy == PLAIN
        return pool.spec.watermarks if plain else self.estimate(pool).marks

    def estimate(self, pool: Pool) -> Estimate:
        """The marks with the reason for them."""
        now = self._clock.monotonic()
        if pool.wish is None or now >= pool.wish_until or pool.wished_for is not pool.spec:
            pool.wish = self._estimate(pool)
            # A target in units that are not known yet is computed anew as soon as they are.
            pool.wish_until = now + AGE_S if self._limits(pool) is not None else -math.inf
            pool.wished_for = pool.spec
        return pool.wish

    def ask(self, pool: Pool, counts: Counts, room: int) -> int:
        """Addresses to ask of the cloud now, whether due or not."""
        marks = self.marks(pool)
        return ask_units(counts.attached, counts.used, counts.pending, marks, room, self._unit(pool))

    def excess(self, pool: Pool, counts: Counts) -> int:
        """Addresses beyond what the node should hold, as far as they can go: those of a prefix go together or stay."""
        surplus = excess_units(counts.attached, counts.used, self.marks(pool), self._unit(pool))
        if not surplus or pool.instance is None:
            return surplus
        interfaces = list(pod_interfaces(pool.spec, pool.instance))
        prefixes = [members(each) for interface in interfaces for each in interface.prefixes]
        if not prefixes:
            return surplus
        usage = pool.usage or Usage()
        busy = usage.in_use | usage.cooling
        unused = sum(busy.isdisjoint(each) for each in prefixes)
        whole = min(surplus // PREFIX_SIZE, unused) * PREFIX_SIZE
        singles = sum(address not in busy for each in interfaces for address in each.addresses)
        return whole + min(surplus - whole, singles)

    def _unit(self, pool: Pool) -> int:
        policy = pool.spec.policy
        return unit_of(policy, units(pool.spec, self._limits(pool))) if target(policy) else 1

    def _estimate(self, pool: Pool) -> Estimate:
        spec = pool.spec
        name = target(spec.policy)
        marks = marks_of(spec.watermarks, spec.policy, units(spec, self._limits(pool))) if name else spec.watermarks
        if spec.policy.follow_demand and pool.forecast is not None:
            estimate = pool.forecast.estimate(self._now_s(), marks, self.time_to_address.seconds)
        elif spec.policy.follow_demand:
            estimate = Estimate(marks, "nothing was heard of this node's demand yet")
        else:
            estimate = Estimate(marks, f"{name} = {getattr(spec.policy, name)}" if name else "as configured")
        if spec.policy.warm_up and not pool.warmed:
            warm = warming(estimate.marks, spec.policy)
            estimate = Estimate(warm, f"{estimate.why}; warming up to {spec.policy.warm_up} addresses, once")
        return estimate

    def warmed(self, pool: Pool, attached: int, room: int) -> None:
        """Ends the warm-up of a node that has had its first addresses, or all that it can hold."""
        if pool.warmed or not pool.spec.policy.warm_up or pool.instance is None:
            return
        most = pool.spec.watermarks.max_allocate
        wanted = min(pool.spec.policy.warm_up, most) if most else pool.spec.policy.warm_up
        if attached >= wanted or not room:
            pool.warmed = True
            pool.wish = None
            self._fleet.remember(f"warmed/{pool.spec.name}", {})
