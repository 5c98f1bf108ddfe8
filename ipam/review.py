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

from ipam import release
from ipam.config import IpamConfig
from ipam.fleet import Fleet, OpenIntent
from ipam.model import AddressState, Intent, IntentKind, Limits, Watermarks
from ipam.plan import capacity
from ipam.pools import Counts, Pool
from ipam.ports import Capabilities, Clock
from ipam.watermarks import ask, due, excess

PRIORITIES = {
    IntentKind.ALLOCATE: 2,
    IntentKind.SYNC_INSTANCE: 4,
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
    """:ivar outbox: intents to be enqueued once they are durable."""

    def __init__(self, config: IpamConfig, capabilities: Capabilities, clock: Clock, fleet: Fleet) -> None:
        self._config = config
        self._capabilities = capabilities
        self._clock = clock
        self._fleet = fleet
        self._random = random.Random()  # noqa: S311 - jitter, not a secret
        self.outbox: list[Parcel] = []

    def review(self, pool: Pool) -> None:
        now = self._clock.monotonic()
        counts = pool.counts()
        if pool.gone:
            pool.deficit_since = pool.excess_since = None
            if pool.connected and not pool.intent_id and self._may(pool, IntentKind.SYNC_INSTANCE, now):
                self.open(IntentKind.SYNC_INSTANCE, pool)
            return
        if pool.usage is not None and pool.connected:
            self._handshake(pool, counts, now)
            wanted = self._wanted(pool, counts, now)
        else:
            wanted = 0
        opened = self._fleet.intents.get(pool.intent_id)
        if opened is not None and wanted and self._gives_way(opened, now):
            self._fleet.close_intent(opened.intent.id)
            opened = None
        if opened is not None:
            return
        if wanted and self._may(pool, IntentKind.ALLOCATE, now):
            self.open(IntentKind.ALLOCATE, pool, want=wanted, urgent=counts.pending > 0 or pool.instance is None)
        elif self._is_stale(pool) and self._may(pool, IntentKind.SYNC_INSTANCE, now):
            self.open(IntentKind.SYNC_INSTANCE, pool)
        else:
            self._open_release(pool, now)

    def _is_stale(self, pool: Pool) -> bool:
        if pool.instance is None:
            return pool.reread or pool.connected
        return pool.reread or (pool.connected and bool(pool.hidden(self._fleet.subnets)))

    def room(self, pool: Pool) -> int:
        """Addresses that the instance could still take; very many while its limits are unknown."""
        limits = self.limits(pool)
        if limits is None or pool.instance is None:
            return NO_LIMIT
        most = capacity(pool.spec, pool.instance, limits, creates_interfaces=self._capabilities.creates_interfaces)
        return max(most - pool.attached(), 0)

    def limits(self, pool: Pool) -> Limits | None:
        kind = pool.instance.type if pool.instance is not None else pool.spec.instance_type
        return self._config.limits_override.get(kind) or self._fleet.limits.get(kind)

    def want(self, pool: Pool) -> int:
        """Addresses to ask of the cloud now, whether due or not."""
        counts = pool.counts()
        return ask(counts.attached, counts.used, counts.pending, pool.spec.watermarks, self.room(pool))

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
        self._fleet.put_intent(OpenIntent(intent, ready_at=now))
        self.enqueue(intent, urgent=urgent)
        return intent

    def enqueue(self, intent: Intent, *, urgent: bool = False) -> None:
        opened = self._fleet.intents[intent.id]
        now = self._clock.monotonic()
        opened.enqueued_at = max(now, opened.ready_at)
        priority = URGENT if urgent else PRIORITIES[intent.kind]
        self.outbox.append(Parcel(intent.id, max(opened.ready_at - now, 0.0), priority, copy_context()))

    def open_single(self, kind: IntentKind, addresses: tuple[str, ...] = ()) -> str:
        """An intent of the whole account, unless one of its kind is open; returns its id."""
        for opened in self._fleet.intents.values():
            if opened.intent.kind is kind:
                return opened.intent.id
        return self.open(kind, addresses=addresses).id

    def sweep(self, monotonic: float) -> None:
        """Enqueues again what no worker holds and was enqueued long enough ago to be lost.

        What nobody takes is enqueued ever more seldom: while workers are away the queue must not fill with copies.
        """
        for opened in list(self._fleet.intents.values()):
            patience_s = self._config.sweep_interval_s * 2**opened.sweeps
            lost = monotonic - opened.enqueued_at >= patience_s
            if lost and monotonic >= opened.ready_at and not opened.leased(monotonic):
                opened.sweeps = min(opened.sweeps + 1, MOST_SWEEPS)
                self.enqueue(opened.intent)

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
            counts.attached, counts.used, counts.pending, pool.spec.watermarks, lasted_s=now - pool.deficit_since,
            coalesce_s=self._config.coalesce_s, urgent_fraction=self._config.urgent_fraction,
        )  # fmt: skip
        if wait_s > MOMENT_S:
            self._fleet.look(pool, now + wait_s)
            return 0
        return wanted

    def _gives_way(self, opened: OpenIntent, now: float) -> bool:
        """A release or a reading that no worker holds waits while pods may be waiting. What is releasing stays so."""
        return opened.intent.kind in (IntentKind.RELEASE, IntentKind.SYNC_INSTANCE) and not opened.leased(now)

    def _may(self, pool: Pool, kind: IntentKind, now: float) -> bool:
        until = pool.holds.get(kind, -math.inf)
        if now < until:
            self._fleet.look(pool, until)
            return False
        return True

    def _handshake(self, pool: Pool, counts: Counts, now: float) -> None:
        release.expire(self._fleet, pool, now)
        surplus = excess(counts.attached, counts.used, pool.spec.watermarks)
        if counts.pending or not pool.spec.release_excess:
            surplus = 0
        marked = len(pool.in_state(AddressState.MARKED))
        ready = len(pool.in_state(AddressState.READY))
        release.give_back(self._fleet, pool, marked + ready - surplus)
        if not surplus:
            pool.excess_since = None
        elif not marked and not ready:
            self._begin_release(pool, surplus, now)

    def _begin_release(self, pool: Pool, surplus: int, now: float) -> None:
        if pool.excess_since is None:
            pool.excess_since = now
            pool.excess_low = surplus
        pool.excess_low = min(pool.excess_low, surplus)
        ends = pool.excess_since + self._config.release_delay_s * patience(pool.spec.watermarks, surplus, self._config)
        if now < ends:
            self._fleet.look(pool, ends)
        elif not pool.intent_id and self._may(pool, IntentKind.RELEASE, now):
            marked = release.mark(
                self._fleet, pool, min(pool.excess_low, self._capabilities.max_addresses_per_call), now
            )
            pool.excess_since = None
            if not marked:  # all that is too much is cooling down or still fenced from the last time
                self._fleet.look(pool, now + max(self._config.release_delay_s, 1.0))

    def _open_release(self, pool: Pool, now: float) -> None:
        owed = pool.in_state(AddressState.RELEASING)
        if not pool.in_state(AddressState.MARKED):
            owed += pool.in_state(AddressState.READY)
        if owed and self._may(pool, IntentKind.RELEASE, now):
            self.open(IntentKind.RELEASE, pool, addresses=tuple(owed))
