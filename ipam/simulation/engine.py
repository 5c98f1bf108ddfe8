"""The loop: pods start and end, nodes are looked at, calls are answered; one event after the other, as time has them.

A node is looked at as review.py looks at it: a deficit is asked for when it is due, an excess is released when it has
lasted, and one thing at a time is owed to the cloud. Left out, since they change none of the figures: streams and
their reports (`reaction_s` stands for them), the journal, services that fail, listings (they are counted), repairs.
Where marks follow demand a node that is quiet is looked at every quarter of an hour, not every minute.
"""

from __future__ import annotations

import gc
import heapq
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

from ipam.allocation import SUBNET_RETRY_S
from ipam.errors import InvalidInput
from ipam.fleet import Fleet
from ipam.model import IntentKind, Limits, NodeSpec, Policy, Watermarks
from ipam.overrides import overridden
from ipam.plan import Shortfall, call_limits, capacity
from ipam.pools import Pool
from ipam.review import MOMENT_S, PRIORITIES, URGENT, patience
from ipam.simulation.account import Account, Work
from ipam.simulation.agenda import SimulatedClock, SimulatedTime
from ipam.simulation.cloud import Ended, SimulatedCloud
from ipam.simulation.model import Group, Result, Variant, Workload
from ipam.simulation.nodes import Node, Port, Wished
from ipam.simulation.population import ample, group_of
from ipam.simulation.space import Space
from ipam.simulation.streams import Span, spans
from ipam.simulation.tally import Tally
from ipam.targets import by_interface
from ipam.watermarks import due, needed
from ipam.wishes import Wishes

QUIET_LOOK_S = 900.0
PROGRESS_EVENTS = 20_000

Progress = Callable[[float], None]


class Simulation:
    """One variant with one workload. `step` makes it usable by tests that look at every event."""

    def __init__(self, workload: Workload, variant: Variant) -> None:
        self.workload, self.variant = workload, variant
        self.time = SimulatedTime()
        self.tally = Tally(workload.measure_from_s)
        self.nodes: list[Node] = []
        rules = workload.cloud
        self._config = variant.config
        self._chance = random.Random(f"{workload.seed}/service")  # noqa: S311 - jitter, not a secret
        self._wishes = Wishes(self._config, SimulatedClock(self.time), Fleet(), self._limits)
        block = rules.capabilities.prefix_size if rules.capabilities.prefixes else 0
        named = workload.subnets or ample(workload.groups)
        self.spaces = {each.id: Space(each, reserved=rules.reserved, block=block) for each in named}
        self._cloud = SimulatedCloud(rules, variant, self.spaces, self.time, self._ended, self._throttled, self._want)
        self.account = self._cloud.account = Account(
            self.time, self._cloud, budget=variant.budget, throttle=rules.throttle, workers=variant.workers,
            fifo=variant.fifo,
            seconds=rules.seconds_of,
        )  # fmt: skip
        self._wished: dict[tuple[Watermarks, Policy, str], Wished] = {}
        self._counted_from: dict[str, int] = {}
        self._throttled_before = 0
        self._pods = 0
        self._end_s = workload.duration_s
        self._populate()
        self.time.at(workload.measure_from_s, self._begin_counting, None)

    # the loop

    def step(self) -> bool:
        """Handles one event; False when there is none before the end."""
        time = self.time
        agenda = time.agenda
        if not agenda or agenda[0][0] > self._end_s:
            return False
        at, _, act, what = heapq.heappop(agenda)
        if at > time.now:
            self.tally.pass_time(at)
            time.now = at
        act(what)
        return True

    def run(self, progress: Progress | None = None) -> Result:
        """:param progress: told the part that is done, now and then."""
        began = time.perf_counter()
        number = 0
        # Events are many and live long; what they leave is freed by its counts alone.
        thresholds = gc.get_threshold()
        gc.set_threshold(200_000, 50, 1000)
        try:
            step = self.step
            while step():
                number += 1
                if progress is not None and number % PROGRESS_EVENTS == 0:
                    progress(self.time.now / self.workload.duration_s)
        finally:
            gc.set_threshold(*thresholds)
        return replace(self.result(), wall_s=time.perf_counter() - began)

    def result(self) -> Result:
        end_s = self.workload.duration_s
        tally = self.tally
        tally.pass_time(end_s)
        for node in self.nodes:
            for since in node.line.values():
                tally.gave_up(since, end_s)
            node.line.clear()
        calls = {name: count - self._counted_from.get(name, 0) for name, count in sorted(self.account.calls.items())}
        return Result(
            variant=self.variant.name, pods=tally.pods, waits_s=sorted(tally.waits), unserved=tally.unserved,
            calls={name: count for name, count in calls.items() if count} | self._listings(),
            throttled=self.account.throttled - self._throttled_before, held_mean=tally.mean_held(),
            idle_mean=tally.mean_idle(), idle_peak=tally.idle_peak, idle_address_hours=tally.idle_hours(),
            at_capacity=sum(node.full for node in self.nodes), nodes=len(self.nodes),
            subnets=[space.result() for space in self.spaces.values()] if self.workload.subnets else [],
        )  # fmt: skip

    def _listings(self) -> dict[str, int]:
        """Full listings are counted, and not simulated: they have an allowance of their own."""
        measured_s = self.workload.duration_s - self.workload.measure_from_s
        passes = int(measured_s / self._config.resync_interval_s)
        pages = -(-len(self.nodes) // self.workload.cloud.page)
        return {"list-instances": passes * pages} if passes else {}

    def _begin_counting(self, _: object) -> None:
        self._counted_from = dict(self.account.calls)
        self._throttled_before = self.account.throttled

    # nodes and pods

    def _populate(self) -> None:
        work = self.workload
        if work.recorded:
            self._populate_recorded()
            return
        for group in work.groups:
            for number in range(group.nodes):
                from_s = group.join_over_s * number / group.nodes
                name = f"{group.name}-{number}"
                pods = spans(group.pods, seed=f"{work.seed}/{name}", from_s=from_s, to_s=work.duration_s)
                self._announce(name, group, group.zones[number % len(group.zones)], from_s, pods)

    def _populate_recorded(self) -> None:
        found: defaultdict[str, list[Span]] = defaultdict(list)
        for pod in self.workload.recorded:
            found[pod.node].append((pod.start_s, pod.end_s))
        counted: dict[str, int] = {}
        for name, pods in found.items():
            group = group_of(self.workload.groups, name)
            number = counted[group.name] = counted.get(group.name, -1) + 1
            self._announce(name, group, group.zones[number % len(group.zones)], 0.0, iter(pods))

    def _announce(self, name: str, group: Group, zone: str, at_s: float, pods: Iterator[Span]) -> None:
        config = self._config
        defaults = NodeSpec(
            name, name, group.type, watermarks=config.watermarks, policy=config.policy,
            first_interface_index=config.first_interface_index, delete_on_termination=config.delete_on_termination,
            release_excess=config.release_excess, prefix_delegation=self.variant.prefix_delegation,
            use_primary_address=self.variant.use_primary_address, labels=group.labels,
        )  # fmt: skip
        spec = overridden(defaults, config.overrides, group.labels)
        self.time.at(at_s, self._join, (spec, group.type, zone, pods))

    def _join(self, what: tuple[NodeSpec, str, str, Iterator[Span]]) -> None:
        spec, kind, zone, pods = what
        rules = self.workload.cloud
        home = max((each for each in self.spaces.values() if each.rule.zone == zone), key=lambda each: each.free)
        if not home.free:
            home.refuse(self.time.now)
            raise InvalidInput(
                f"subnet {home.rule.id} has no address for node {spec.name} itself", field=f"subnet.{home.rule.id}",
                remedy="give it a larger range, or the group fewer nodes",
            )  # fmt: skip
        node = Node(spec, kind, zone, Port(f"{spec.name}-0", 0, 0, home.rule.id, home.take(1)[0]))
        node.wishes = self._wished.setdefault((spec.watermarks, spec.policy, kind), {})
        calls = call_limits(rules.capabilities)
        node.capacity = capacity(
            spec, node.instance(), rules.types[kind], creates_interfaces=calls.creates_interfaces,
            prefix_size=calls.prefix_size,
        )  # fmt: skip
        self.nodes.append(node)
        self.account.calls["read-instance"] += 1
        if node.demand:
            self._wishes.observe(node.pool, 0, 0)
        self._next_pod((node, pods))
        self._review(node)

    def _next_pod(self, what: tuple[Node, Iterator[Span]]) -> None:
        node, pods = what
        span = next(pods, None)
        if span is not None and span[0] <= self.workload.duration_s:
            self.time.at(max(span[0], self.time.now), self._start, (node, pods, span[1]))

    def _start(self, what: tuple[Node, Iterator[Span], float]) -> None:
        node, pods, ends_s = what
        now = self.time.now
        self._pods += 1
        pod = self._pods
        returned = node.expire(now)
        if node.demand:  # whether it waits or not
            self._wishes.observe(node.pool, 1, returned)
        if not node.line and node.lease(pod):
            self.tally.used += 1
            self.tally.served(now, now)
        else:
            node.line[pod] = now
            if node.cooling:
                self._look(node, node.cooling[0][0])
        if ends_s <= self.workload.duration_s:
            self.time.at(ends_s, self._stop, (node, pod))
        self._next_pod((node, pods))
        self._review(node)

    def _stop(self, what: tuple[Node, int]) -> None:
        node, pod = what
        now = self.time.now
        address = node.leases.pop(pod, None)
        if address is None:
            self.tally.gave_up(node.line.pop(pod), now)
            self._review(node)
            return
        self.tally.used -= 1
        node.cooling.append((now + self.variant.cooldown_s, address))
        # Until it has cooled it counts as used, so nothing is due before; and nothing then if all is wanted free.
        wish = node.pool.wish
        if wish is None or node.line or node.held - len(node.leases) > wish.marks.pre_allocate:
            self._look(node, now + self.variant.cooldown_s)

    def _serve(self, node: Node) -> None:
        """Those who wait have what is free, the first first."""
        now = self.time.now
        while node.line and node.free:
            pod = next(iter(node.line))
            node.lease(pod)
            self.tally.used += 1
            self.tally.served(node.line.pop(pod), now)

    # looking at a node

    def _look(self, node: Node, at_s: float) -> None:
        if at_s < node.look_at:
            node.look_at = at_s
            self.time.at(at_s, self._looked, node)

    def _looked(self, node: Node) -> None:
        if node.look_at <= self.time.now:
            node.look_at = math.inf
            self._review(node)

    def _review(self, node: Node) -> None:
        now = self.time.now
        cooling = node.cooling
        if cooling and cooling[0][0] <= now:
            self._expire(node)
        if node.line:
            self._serve(node)
        if cooling and (node.line or not node.demand):
            self._look(node, cooling[0][0])
        pool = node.pool
        if not pool.warmed and pool.spec.policy.warm_up:
            attached = node.counts().attached
            self._wishes.warmed(pool, attached, node.capacity - attached)
        attached, used, pending = node.held - node.releasing, len(node.leases) + len(cooling), len(node.line)
        if node.demand and (attached > used or cooling):
            self._look(node, now + QUIET_LOOK_S)
        marks = self._wishes.marks(pool)
        wanted, surplus = self._wishes_of(node, marks)
        if node.fenced or surplus:
            self._handshake(node, marks, surplus)
        else:
            pool.excess_since = None
        wanted = self._due(node, marks, wanted)
        work = node.work
        if isinstance(work, Work):
            if pending and work.kind is IntentKind.ALLOCATE:
                self.account.hurry(work)
            if not (wanted and work.kind is not IntentKind.ALLOCATE and work.waiting):
                return
            work.cancelled = True
            node.work = None
            node.lift(len(node.fenced))
            self._serve(node)
            pending = len(node.line)
            wanted = self._due(node, marks, self._wishes_of(node, marks)[0])
        if not wanted:
            return
        if now < node.hold_until:
            self._look(node, node.hold_until)
            return
        self._open(node, IntentKind.ALLOCATE, wanted, urgent=pending > 0 or not node.held)

    def _wishes_of(self, node: Node, marks: Watermarks) -> tuple[int, int]:
        """Addresses to ask for, and those beyond what the node should hold. Alike nodes in alike states wish alike."""
        if node.spec.prefix_delegation:  # then it matters which addresses are used
            node.pool.usage = node.usage()
            return self._wish(node)
        key = (
            marks.pre_allocate, marks.min_allocate, marks.max_above_watermark, node.held, node.releasing,
            len(node.leases) + len(node.cooling), len(node.line), node.capacity,
        )  # fmt: skip
        known = node.wishes.get(key)
        if known is None:
            known = node.wishes[key] = self._wish(node)
        return known

    def _expire(self, node: Node) -> None:
        """Ends cooldowns that are over."""
        returned = node.expire(self.time.now)
        if returned and node.demand:
            self._wishes.observe(node.pool, 0, returned)

    def _wish(self, node: Node) -> tuple[int, int]:
        pool, counts = node.pool, node.counts()
        asked = self._wishes.ask(pool, counts, max(node.capacity - node.held, 0))
        return asked, self._wishes.excess(pool, counts)

    def _want(self, node: Node) -> int:
        """Whether due or not."""
        self._expire(node)
        return self._wishes_of(node, self._wishes.marks(node.pool))[0]

    def _due(self, node: Node, marks: Watermarks, wanted: int) -> int:
        """Addresses to ask for now; if it can wait, looks again when it cannot."""
        pool = node.pool
        if node.held >= node.capacity:
            node.full = True
        if not wanted:
            pool.deficit_since = None
            return 0
        now, config, counts = self.time.now, self._config, node.counts()
        if pool.deficit_since is None:
            pool.deficit_since = now
        wait_s = due(
            counts.attached, counts.used, counts.pending, marks, lasted_s=now - pool.deficit_since,
            coalesce_s=config.coalesce_s, urgent_fraction=config.urgent_fraction,
        )  # fmt: skip
        if wait_s > MOMENT_S:
            self._look(node, now + wait_s)
            return 0
        return wanted

    def _open(self, node: Node, kind: IntentKind, want: int = 0, *, urgent: bool = False) -> None:
        now = self.time.now
        work = Work(node, kind, URGENT if urgent else PRIORITIES[kind], now, goal=node.held + want)
        node.work = work
        self.account.enqueue(work, self.variant.reaction_s)

    # giving back; in time as Reviewer does it

    def _handshake(self, node: Node, marks: Watermarks, surplus: int) -> None:
        pool = node.pool
        if node.releasing:
            return
        if node.line or not node.spec.release_excess:
            surplus = 0
        if node.fenced:
            work = node.work
            if isinstance(work, Work) and work.waiting and surplus < len(node.fenced):
                whole = work.kind is IntentKind.RELEASE_INTERFACE
                node.lift(len(node.fenced) if whole else len(node.fenced) - surplus)
                if not node.fenced:
                    work.cancelled = True
                    node.work = None
        elif not surplus:
            pool.excess_since = None
        else:
            self._age(node, marks, surplus)

    def _age(self, node: Node, marks: Watermarks, surplus: int) -> None:
        """An excess that has lasted is fenced and released."""
        now, pool, config = self.time.now, node.pool, self._config
        batch = config.release_batch
        if pool.excess_since is None:
            pool.excess_since, pool.excess_low = now, surplus
            spread_s = self._chance.uniform(0.0, config.release_interval_s) if batch else 0.0
            pool.batch_at = now + config.release_delay_s + spread_s
        pool.excess_low = min(pool.excess_low, surplus)
        ends = pool.excess_since + config.release_delay_s * patience(marks, surplus, config)
        ends = max(ends, pool.batch_at) if batch else ends
        if now < ends:
            self._look(node, ends)
            return
        if node.work is not None:
            return
        kind, chosen = self._choose(node, marks, surplus)
        if chosen:
            node.fence(chosen)
            self._open(node, kind)
        if batch and chosen:
            pool.excess_low = max(pool.excess_low - len(chosen), 1)
            pool.batch_at = now + config.release_interval_s * self._chance.uniform(0.5, 1.5)
            return
        pool.excess_since = None
        if not chosen:
            self._look(node, now + max(config.release_delay_s, 1.0))

    def _choose(self, node: Node, marks: Watermarks, surplus: int) -> tuple[IntentKind, list[str]]:
        """A whole interface if one can go, else a batch of addresses."""
        rules, config, pool = self.workload.cloud, self._config, node.pool
        if config.release_interfaces and rules.capabilities.creates_interfaces:
            whole_only = by_interface(node.spec.policy)
            counts = node.counts()
            free = {address for _, address in node.free}
            for port in sorted(node.ports, key=lambda each: -each.index):
                held = node.addresses_of(port)
                left = needed(counts.attached - len(held), counts.used, marks)
                enough = not left if whole_only else surplus >= len(held)
                lent = node.spec.use_primary_address
                if held and port.index > 0 and not lent and enough and free.issuperset(held):
                    return IntentKind.RELEASE_INTERFACE, held
            if whole_only:
                return IntentKind.RELEASE, []
        most = min(pool.excess_low, rules.capabilities.max_addresses_per_call)
        return IntentKind.RELEASE, node.releasable(min(most, config.release_batch or most))

    # the cloud's answers

    def _ended(self, ended: Ended) -> None:
        work, now = ended.work, self.time.now
        node, pool = work.node, work.node.pool
        grown = 0
        for port, addresses in work.brought:
            node.receive(port, addresses)
            grown += len(addresses)
        work.brought.clear()
        pool.instance = node.instance()
        self.tally.held += node.held - node.counted
        node.counted = node.held
        if work.kind is IntentKind.ALLOCATE and ended.short is Shortfall.NO_SUBNET and not grown:
            work.attempts += 1
            self.account.enqueue(work, max(SUBNET_RETRY_S, self._backoff_s(work.attempts)))
            return
        if work.kind is IntentKind.ALLOCATE:
            if grown:
                pool.fruitless = 0
                self._wishes.time_to_address.arrived(now - work.opened_at)
            elif not work.cancelled:
                pool.fruitless += 1
                node.hold_until = now + max(1.0, self._backoff_s(pool.fruitless))
        node.work = None
        self._serve(node)
        self._review(node)

    def _throttled(self, work: Work) -> None:
        work.attempts += 1
        self.account.enqueue(work, max(1.0, self._backoff_s(work.attempts)))

    def _backoff_s(self, attempts: int) -> float:
        ceiling = min(self._config.retry_cap_s, self._config.retry_base_s * 2.0 ** min(max(attempts - 1, 0), 30))
        return self._chance.uniform(0.0, ceiling)

    def _limits(self, pool: Pool) -> Limits | None:
        return self.workload.cloud.types.get(pool.spec.instance_type)


def simulate(workload: Workload, variant: Variant, progress: Progress | None = None) -> Result:
    """Raises InvalidInput for a workload that cannot be, where only running it shows that."""
    return Simulation(workload, variant).run(progress)
