"""What to do for a node now: the level-triggered heart. Called after anything that concerns the node; it compares what
is with what should be, opens at most one intent, and says when to look again."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Iterable
from contextvars import Context, copy_context
from dataclasses import replace
from typing import NamedTuple

from ipam import release, whole
from ipam.config import IpamConfig
from ipam.degradation import Degradation, allows
from ipam.drifted import Drifted
from ipam.fleet import Fleet, OpenIntent
from ipam.model import AddressState, Intent, IntentKind, Limits, Watermarks
from ipam.obtainable import Obtainable, obtainable
from ipam.plan import CallLimits, call_limits, capacity
from ipam.pools import Counts, Pool
from ipam.ports import Capabilities, Clock
from ipam.reclaim import KEPT, owes, reclaim
from ipam.targets import by_interface
from ipam.watermarks import due, needed
from ipam.wishes import Wishes

PRIORITIES = {
    IntentKind.ALLOCATE: 2,
    IntentKind.SYNC_INSTANCE: 4,
    IntentKind.REPAIR: 5,
    IntentKind.RELEASE: 6,
    IntentKind.RELEASE_INTERFACE: 6,
    IntentKind.RESYNC: 7,
    IntentKind.COLLECT: 9,
}
URGENT = 0
NO_LIMIT = 1 << 20
PATIENCE = 4.0
STARVING_CAP_S = 15.0
MOST_SWEEPS = 3
LONGEST_TURN = 60  # sweeps
DEMAND_LOOK_S = 60.0
GIVE_WAY = frozenset({IntentKind.RELEASE, IntentKind.RELEASE_INTERFACE, IntentKind.SYNC_INSTANCE})
FENCED = frozenset({AddressState.READY, AddressState.RELEASING})
LEAVING = FENCED | {AddressState.MARKED}
MOMENT_S = 0.001  # a wait that is nothing but rounding would be looked at for ever


def patience(marks: Watermarks, surplus: int, config: IpamConfig) -> float:
    """How many release delays an excess must last: a small one longer, since the next pods want it back."""
    small = surplus <= config.urgent_fraction * marks.pre_allocate
    return PATIENCE if small else 1.0


class Parcel(NamedTuple):
    """An intent for the queue.

    :ivar delay_s: how long until a worker may have it.
    :ivar priority: as ipam.ports.Queue has it.
    :ivar cause: the context in which it was decided; it is published by another task, which belongs to nobody's trace.
    """

    intent_id: str
    delay_s: float
    priority: int
    cause: Context


class Reviewer:
    """
    :ivar outbox: intents to be enqueued once they are durable.
    :ivar wishes: the marks in force for each node.
    """

    def __init__(self, config: IpamConfig, capabilities: Capabilities, clock: Clock, fleet: Fleet) -> None:
        self._config = config
        self._capabilities = capabilities
        self._clock = clock
        self._fleet = fleet
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        self.config = config
        self.wishes = Wishes(config, clock, fleet, self.limits)
        self.outbox: list[Parcel] = []
        # How far workers have come in the queue: when one last took anything, and by priority the newest that was.
        self._taken_at = -math.inf
        self._reached: dict[int, float] = {}
        self._drifted = Drifted(config, capabilities, fleet, self.limits)

    def review(self, pool: Pool) -> None:
        now = self._clock.monotonic()
        counts = pool.counts()
        if pool.gone:
            pool.deficit_since = pool.excess_since = None
            if pool.connected and not pool.intent_id and self._may(pool, IntentKind.SYNC_INSTANCE, now):
                self.open(IntentKind.SYNC_INSTANCE, pool)
            return
        if pool.usage is not None and pool.connected:
            if pool.spec.policy.warm_up and not pool.warmed:
                self.wishes.warmed(pool, counts.attached, self.room(pool))
            if pool.spec.policy.follow_demand:
                self._fleet.look(pool, now + DEMAND_LOOK_S)  # demand that ends says so by silence only
            self._handshake(pool, counts, now)
            wanted = self._wanted(pool, counts, now)
        else:
            wanted = 0
        if wanted and counts.waiting and self._config.reclaim:
            self._reclaim(pool, counts.waiting, now)
        opened = self._fleet.intents.get(pool.intent_id)
        if opened is not None and wanted and self._gives_way(opened, now):
            self._fleet.close_intent(opened.intent.id)
            opened = None
        if opened is not None:
            if counts.waiting and opened.intent.kind is IntentKind.ALLOCATE:
                self._hurry(opened, now)
            return
        if wanted and self._may(pool, IntentKind.ALLOCATE, now):
            self.open(IntentKind.ALLOCATE, pool, want=wanted, urgent=counts.waiting > 0 or pool.instance is None)
        elif self._is_stale(pool) and self._may(pool, IntentKind.SYNC_INSTANCE, now):
            self.open(IntentKind.SYNC_INSTANCE, pool)
        elif self._may(pool, IntentKind.REPAIR, now) and self._drifted.due(pool, now):
            self.open(IntentKind.REPAIR, pool)
        else:
            self._open_release(pool, now)

    def review_all(self) -> None:
        """Has every pool looked at, since what the service does at all has changed."""
        for pool in self._fleet.pools.values():
            self._fleet.look(pool, -math.inf)

    def _is_stale(self, pool: Pool) -> bool:
        if pool.instance is None:
            return pool.reread or pool.connected
        return pool.reread or (pool.connected and bool(pool.hidden(self._fleet.subnets)))

    def room(self, pool: Pool) -> int:
        """Addresses that the instance could still take; very many while its limits are unknown."""
        limits = self.limits(pool)
        if limits is None or pool.instance is None:
            return NO_LIMIT
        return max(self.capacity(pool) - pool.attached(), 0)

    def capacity(self, pool: Pool) -> int:
        """Addresses for pods that the node can hold at most; 0 while that is unknown."""
        limits = self.limits(pool)
        if limits is None or pool.instance is None:
            return 0
        calls = call_limits(self._capabilities)
        return capacity(
            pool.spec, pool.instance, limits, creates_interfaces=calls.creates_interfaces,
            prefix_size=calls.prefix_size,
        )  # fmt: skip

    def call_limits(self) -> CallLimits:
        return call_limits(self._capabilities)

    def limits(self, pool: Pool) -> Limits | None:
        kind = pool.instance.type if pool.instance is not None else pool.spec.instance_type
        return self._config.limits_override.get(kind) or self._fleet.limits.get(kind)

    def want(self, pool: Pool) -> int:
        """Addresses to ask of the cloud now, whether due or not."""
        counts = pool.counts()
        wanted = self.wishes.ask(pool, counts, self.room(pool))
        now = self._clock.monotonic()
        if wanted and not counts.pending and owes(pool, now) and self._would_take_back(pool, wanted, now):
            self._fleet.look(pool, pool.owes_until)
            return 0
        return wanted

    def open(
        self,
        kind: IntentKind,
        pool: Pool | None = None,
        *,
        want: int = 0,
        addresses: tuple[str, ...] = (),
        urgent: bool = False,
    ) -> Intent:
        intent = Intent(
            id=f"{kind}-{secrets.token_hex(8)}", kind=kind, node=pool.spec.name if pool else "", want=want,
            addresses=addresses, created_at=self._clock.now(),
        )  # fmt: skip
        now = self._clock.monotonic()
        self._fleet.put_intent(OpenIntent(intent, ready_at=now, opened_at=now))
        self.enqueue(intent, urgent=urgent)
        return intent

    def enqueue(self, intent: Intent, *, urgent: bool = False) -> None:
        opened = self._fleet.intents[intent.id]
        now = self._clock.monotonic()
        opened.enqueued_at = max(now, opened.ready_at)
        opened.urgent = opened.urgent or urgent
        self.outbox.append(Parcel(intent.id, max(opened.ready_at - now, 0.0), _priority(opened), copy_context()))

    def taken(self, opened: OpenIntent) -> None:
        """A worker has come for it."""
        self._taken_at = self._clock.monotonic()
        priority = _priority(opened)
        self._reached[priority] = max(opened.enqueued_at, self._reached.get(priority, -math.inf))

    def _hurry(self, opened: OpenIntent, now: float) -> None:
        """Pods have come to wait since it was enqueued: a copy overtakes what nobody waits for. The other comes to
        nothing, as those of the sweep do."""
        if opened.leased(now) or (opened.urgent and not opened.no_turn):
            return
        if opened.no_turn:  # what is urgent has another line before it
            opened.no_turn = False
            opened.ready_at = min(opened.ready_at, now)
        self.enqueue(opened.intent, urgent=True)

    def open_single(self, kind: IntentKind, addresses: tuple[str, ...] = ()) -> str:
        """An intent of the whole account, unless one of its kind is open; returns its id."""
        for opened in self._fleet.intents.values():
            if opened.intent.kind is kind:
                return opened.intent.id
        return self.open(kind, addresses=addresses).id

    def sweep(self, monotonic: float) -> None:
        """Enqueues again what no worker holds and was enqueued long enough ago to be lost.

        What nobody takes is enqueued ever more seldom: while workers are away the queue must not fill with copies.
        While they take others that came before it, it waits for its turn.
        """
        for opened in list(self._fleet.intents.values()):
            patience_s = self._config.sweep_interval_s * 2**opened.sweeps
            lost = monotonic - opened.enqueued_at >= patience_s and not self._waits(opened, monotonic)
            if lost and monotonic >= opened.ready_at and not opened.leased(monotonic):
                opened.sweeps = min(opened.sweeps + 1, MOST_SWEEPS)
                self.enqueue(opened.intent)

    def _waits(self, opened: OpenIntent, monotonic: float) -> bool:
        """Whether workers are busy and have not come to it yet, as far as can be told.

        They have if they took what is as urgent or less so and was enqueued later. Of its kind it may be the only one,
        so it does not wait for ever.
        """
        every_s = self._config.sweep_interval_s
        if monotonic - self._taken_at >= every_s or monotonic - opened.enqueued_at >= LONGEST_TURN * every_s:
            return False
        least = _priority(opened)
        reached = max((at for priority, at in self._reached.items() if priority >= least), default=-math.inf)
        return opened.enqueued_at + every_s > reached

    def not_taken(self, intent_ids: Iterable[str]) -> None:
        """The queue did not take them: the next sweep does not ask how long ago that was."""
        for intent_id in intent_ids:
            opened = self._fleet.intents.get(intent_id)
            if opened is not None:
                opened.enqueued_at = -math.inf
                opened.sweeps = 0

    def backoff_s(self, attempts: int, cap_s: float) -> float:
        """Full jitter: anything up to a ceiling that doubles with each attempt."""
        ceiling = min(cap_s, self._config.retry_base_s * 2.0 ** min(max(attempts - 1, 0), 30))
        return self._random.uniform(0.0, ceiling)

    def cap_s(self, pool: Pool | None) -> float:
        """The longest pause between two attempts: short for a node that has nothing left to give to a pod."""
        longest_s = self._config.retry_cap_s
        if pool is None or not pool.connected:
            return longest_s
        counts = pool.counts()
        return min(longest_s, STARVING_CAP_S) if counts.attached <= counts.used else longest_s

    def rest_s(self, pool: Pool) -> float:
        """How long what gave up rests. Permissions come late, and settings are mended: it is tried again."""
        return min(2 * self.cap_s(pool), self._config.retry_cap_s) * self._random.uniform(0.5, 1.0)

    def retry_later(self, opened: OpenIntent, delay_s: float, why: str) -> None:
        """Gives the lease back and tries again, `delay_s` from now at the earliest."""
        opened.ready_at = self._clock.monotonic() + delay_s
        opened.lease_until = -math.inf
        opened.intent = replace(
            opened.intent, holder="", lease_until_at=0.0, last_error=why, not_before_at=self._clock.now() + delay_s
        )
        self._fleet.mark("intent", opened.intent.id)
        self.enqueue(opened.intent)

    def _wanted(self, pool: Pool, counts: Counts, now: float) -> int:
        """Addresses to ask for now; if it can wait, looks again when it cannot."""
        wanted = self.want(pool)
        if not wanted:
            pool.deficit_since = None
            return 0
        if pool.deficit_since is None:
            pool.deficit_since = now
        wait_s = due(
            counts.attached, counts.used, counts.pending, self.wishes.marks(pool), lasted_s=now - pool.deficit_since,
            coalesce_s=self._config.coalesce_s, urgent_fraction=self._config.urgent_fraction,
        )  # fmt: skip
        if wait_s > MOMENT_S:
            self._fleet.look(pool, now + wait_s)
            return 0
        return wanted

    def _reclaim(self, pool: Pool, pending: int, now: float) -> None:
        """Pods wait, the instance has room, and the subnets in its reach have nothing left: others have."""
        found = self._obtainable(pool, now)
        if found is None or not self.may(IntentKind.RELEASE):
            return
        if found.by_limits and not found.by_subnets and found.subnets:
            reclaim(self._fleet, pool, min(pending, found.by_limits), found.subnets.keys(), now)

    def _would_take_back(self, pool: Pool, wanted: int, now: float) -> bool:
        """Whether a node that has given to others would fetch what these wait for: subnets have no more than that."""
        found = self._obtainable(pool, now)
        waiting = sum(each.usage.pending_pods for each in self._fleet.pools.values() if each.usage is not None)
        return found is None or found.by_subnets < wanted + waiting

    def _obtainable(self, pool: Pool, now: float) -> Obtainable | None:
        limits = self.limits(pool)
        if limits is None or pool.instance is None:
            return None
        return obtainable(
            pool.spec, pool.instance, limits, calls=self.call_limits(), subnets=self._fleet.subnets,
            blocked=self._fleet.blocked(now),
        )  # fmt: skip

    def given_back(self, pool: Pool, count: int, now: float) -> None:
        """A node has given what it owed: who waits for addresses of these subnets tries again at once."""
        pool.owes = max(0, pool.owes - count)
        for subnet_id in pool.owes_in:
            self._fleet.unblock(subnet_id)
        for other in self._fleet.pools.values():
            opened = self._fleet.intents.get(other.intent_id)
            if opened is None or opened.intent.kind is not IntentKind.ALLOCATE or opened.leased(now):
                continue
            if other.counts().pending:
                opened.ready_at = now
                self.enqueue(opened.intent, urgent=True)

    def _gives_way(self, opened: OpenIntent, now: float) -> bool:
        """A release or a reading that no worker holds waits while pods may be waiting. What is releasing stays so."""
        if opened.intent.kind is IntentKind.RELEASE_INTERFACE and opened.intent.steps:
            return False  # half of it is done: an interface that is detached must not be left so
        return opened.intent.kind in GIVE_WAY and not opened.leased(now)

    def level(self) -> tuple[Degradation, str]:
        """How much of its work the service does now, and why no more."""
        now = self._clock.now()
        return self._fleet.throttle.level(now), self._fleet.throttle.why(now)

    def may(self, kind: IntentKind) -> bool:
        """Whether the service does such work at its present level."""
        return allows(self._fleet.throttle.level(self._clock.now()), kind)

    def _may(self, pool: Pool, kind: IntentKind, now: float) -> bool:
        if not self.may(kind):
            return False  # all pools are reviewed when the level changes
        until = pool.holds.get(kind, -math.inf)
        if now < until:
            self._fleet.look(pool, until)
            return False
        return True

    def _handshake(self, pool: Pool, counts: Counts, now: float) -> None:
        release.expire(self._fleet, pool, now)
        self._reconsider_leaving(pool)
        surplus = self._surplus(pool, counts)
        marked = len(pool.in_state(AddressState.MARKED))
        ready = len(pool.in_state(AddressState.READY))
        release.give_back(self._fleet, pool, marked + ready - surplus)
        if not surplus:
            pool.excess_since = None
        elif not marked and not ready:
            self._begin_release(pool, counts, surplus, now)

    def _reconsider_leaving(self, pool: Pool) -> None:
        """An interface stays whole when the node refused one of its addresses, was cut off, or was told otherwise."""
        interface = whole.find(pool, pool.leaving) if pool.leaving else None
        if interface is None:
            pool.leaving = ""
            return
        states = [pool.states.get(each) for each in interface.all_addresses]
        if AddressState.MARKED in states or AddressState.RELEASING in states or self._leaves(pool):
            return
        pool.leaving = ""
        for address, state in zip(interface.all_addresses, states, strict=True):
            if state is AddressState.READY:
                self._fleet.set_state(pool, address, AddressState.AVAILABLE)

    def _surplus(self, pool: Pool, counts: Counts) -> int:
        """Addresses that should go. Those of an interface that leaves go together, or stay together."""
        if counts.pending or not pool.spec.release_excess or not self.may(IntentKind.RELEASE):
            return 0
        marks = self.wishes.marks(pool)
        leaving = whole.find(pool, pool.leaving) if pool.leaving else None
        if leaving is None:
            excess = self.wishes.excess(pool, counts)
            owed = min(pool.owes, counts.attached - counts.used - KEPT) if owes(pool, self._clock.monotonic()) else 0
            return max(excess, owed)
        size = sum(pool.states.get(each) in LEAVING for each in leaving.all_addresses)
        return 0 if needed(counts.attached - size, counts.used, marks) else size

    def _begin_release(self, pool: Pool, counts: Counts, surplus: int, now: float) -> None:
        if pool.owes and owes(pool, now):
            self._fleet.look(pool, pool.owes_until)
            if not pool.intent_id and self._may(pool, IntentKind.RELEASE, now):
                most = min(pool.owes, self._capabilities.max_addresses_per_call)
                if release.mark(self._fleet, pool, most, now, pool.owes_in):
                    return
        marks = self.wishes.marks(pool)
        batch = self._config.release_batch
        pool.leaving = ""
        if pool.excess_since is None:
            pool.excess_since = now
            pool.excess_low = surplus
            # Nodes that fell idle at once must not all give back at once.
            spread_s = self._random.uniform(0.0, self._config.release_interval_s) if batch else 0.0
            pool.batch_at = now + self._config.release_delay_s + spread_s
        pool.excess_low = min(pool.excess_low, surplus)
        ends = pool.excess_since + self._config.release_delay_s * patience(marks, surplus, self._config)
        ends = max(ends, pool.batch_at) if batch else ends
        if now < ends:
            self._fleet.look(pool, ends)
        elif not pool.intent_id and self._may(pool, IntentKind.RELEASE, now):
            marked = self._mark(pool, counts, marks, now)
            if batch and marked:
                pool.excess_low = max(pool.excess_low - marked, 1)
                pool.batch_at = now + self._config.release_interval_s * self._random.uniform(0.5, 1.5)
                return
            pool.excess_since = None
            if not marked:  # all that is too much is cooling down or still fenced from the last time
                self._fleet.look(pool, now + max(self._config.release_delay_s, 1.0))

    def _mark(self, pool: Pool, counts: Counts, marks: Watermarks, now: float) -> int:
        """Marks a whole interface if one can go, else a batch of addresses; returns how many."""
        whole_only = by_interface(pool.spec.policy)
        if self._releases_interfaces():
            surplus = self.wishes.excess(pool, counts)
            interface = whole.dispensable(
                pool, counts, marks, self._config.cluster, surplus=surplus, whole_only=whole_only
            )
            if interface is not None:
                release.mark_whole(self._fleet, pool, interface, now)
                return len(interface.all_addresses)
            if whole_only:
                return 0
        most = min(pool.excess_low, self._capabilities.max_addresses_per_call)
        return release.mark(self._fleet, pool, min(most, self._config.release_batch or most), now)

    def _releases_interfaces(self) -> bool:
        return self._config.release_interfaces and self._capabilities.creates_interfaces

    def _leaves(self, pool: Pool) -> bool:
        """Whether the node has fenced all of an interface that is to go in one piece."""
        interface = whole.find(pool, pool.leaving)
        if interface is None:
            return False
        return all(pool.states.get(each) in FENCED for each in interface.all_addresses)

    def _open_empty(self, pool: Pool, now: float) -> None:
        """Releases an interface that has held nothing for long: it costs a slot and its primary address."""
        if not (self._releases_interfaces() and pool.spec.release_excess and pool.connected):
            return
        idle = {each: pool.idle_interfaces.get(each, now) for each in whole.empty(pool, self._config.cluster)}
        pool.idle_interfaces = idle
        for interface_id, since in idle.items():
            ends = since + self._config.release_delay_s * PATIENCE
            if now < ends:
                self._fleet.look(pool, ends)
            elif not pool.intent_id and self._may(pool, IntentKind.RELEASE_INTERFACE, now):
                self.open(IntentKind.RELEASE_INTERFACE, pool, addresses=(interface_id,))

    def _open_release(self, pool: Pool, now: float) -> None:
        if pool.leaving and self._leaves(pool):
            if self._may(pool, IntentKind.RELEASE_INTERFACE, now):
                interface = whole.find(pool, pool.leaving)
                addresses = interface.all_addresses if interface is not None else ()
                self.open(IntentKind.RELEASE_INTERFACE, pool, addresses=(pool.leaving, *addresses))
            return
        owed = pool.in_state(AddressState.RELEASING)
        if not pool.in_state(AddressState.MARKED):
            owed += pool.in_state(AddressState.READY)
        if owed and self._may(pool, IntentKind.RELEASE, now):
            self.open(IntentKind.RELEASE, pool, addresses=tuple(owed))
        elif not owed:
            self._open_empty(pool, now)


def _priority(opened: OpenIntent) -> int:
    """In the queue, as it was enqueued last."""
    return URGENT if opened.urgent else PRIORITIES[opened.intent.kind]
