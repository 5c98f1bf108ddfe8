"""The worker's side of the service: claim an intent, write steps down, confirm a release, complete.

A claim holds a lease and carries a fence. Whoever comes with another fence has been followed by somebody else and is
refused; an expired lease can be taken over by the next to ask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ipam import release, resync, whole
from ipam.config import IpamConfig
from ipam.errors import NotFound, StaleFence
from ipam.fleet import Fleet, OpenIntent
from ipam.model import (
    AddressState,
    Claim,
    DeadLetter,
    Done,
    Goal,
    Instance,
    Intent,
    IntentKind,
    Outcome,
    Report,
    Retry,
    Step,
)
from ipam.pools import Pool
from ipam.ports import Block, Clock
from ipam.reclaim import owes
from ipam.review import Reviewer

GONE_S = 30.0
MISSED_CAP_S = 60.0
UNDERWAY_SHARE = 1 / 20  # of the time that work has lasted at the cloud: what lasts long is asked about more seldom
RELEASE_STATES = frozenset({AddressState.READY, AddressState.RELEASING})


class Claims:
    def __init__(self, config: IpamConfig, clock: Clock, fleet: Fleet, reviewer: Reviewer) -> None:
        self._config = config
        self._clock = clock
        self._fleet = fleet
        self._reviewer = reviewer

    def claim(self, intent_id: str, holder: str) -> Claim | None:
        """The intent's lease with all that is known, or None: it is closed, not ready yet, or held by another.

        A holder that did not hear the answer asks again, and gets its claim again: else nobody would work at the
        intent until a lease ends of which nobody knows.
        """
        now = self._clock.monotonic()
        opened = self._fleet.intents.get(intent_id)
        if opened is None or now < opened.ready_at or not self._reviewer.may(opened.intent.kind):
            return None
        pool = self._fleet.pools.get(opened.intent.node)
        if opened.leased(now):
            return self._claim(opened.intent, pool, now) if opened.intent.holder == holder else None
        intent = self._refreshed(opened.intent, pool)
        if intent is None:
            self._fleet.close_intent(intent_id)
            if pool is not None:
                self._reviewer.review(pool)
            return None
        self._reviewer.taken(opened)
        opened.claimed_at = now
        opened.sweeps = 0
        opened.lease_until = now + self._config.lease_s
        opened.intent = intent = replace(
            intent, holder=holder, fence=intent.fence + 1, attempts=intent.attempts + 1,
            lease_until_at=self._clock.now() + self._config.lease_s,
        )  # fmt: skip
        self._fleet.mark("intent", intent_id)
        return self._claim(intent, pool, now)

    def _refreshed(self, intent: Intent, pool: Pool | None) -> Intent | None:
        """The intent as it makes sense now; None if it makes none any more."""
        if intent.kind is IntentKind.COLLECT:
            in_use = resync.named(self._fleet)
            targets = tuple(each for each in intent.addresses if each not in in_use)
            return replace(intent, addresses=targets) if targets else None
        if not intent.node:
            return intent
        if pool is None or (pool.gone and intent.kind is not IntentKind.SYNC_INSTANCE):
            return None
        if self._speaks(intent, pool):
            want = self._reviewer.want(pool)
            return replace(intent, want=want) if want or intent.steps else None
        if intent.kind is IntentKind.RELEASE_INTERFACE:
            leaving = whole.find(pool, intent.addresses[0])
            states = [pool.states.get(each) for each in leaving.all_addresses] if leaving is not None else []
            return intent if intent.steps or all(each in RELEASE_STATES for each in states) else None
        if intent.kind is IntentKind.RELEASE:
            owed = tuple(each for each in intent.addresses if pool.states.get(each) in RELEASE_STATES)
            return replace(intent, addresses=owed) if owed else None
        return intent

    def _claim(self, intent: Intent, pool: Pool | None, now: float) -> Claim:
        if pool is None:
            return Claim(intent, intent.fence, self._config.lease_s)
        instance = None if self._must_read(intent, pool) else pool.instance
        subnets = self._fleet.subnets.values()
        groups = self._fleet.groups.values()
        seen = pool.instance
        return Claim(
            intent, intent.fence, self._config.lease_s, node=pool.spec, instance=instance,
            subnets=tuple(each for each in subnets if seen is None or each.vpc_id == seen.vpc_id),
            security_groups=tuple(each for each in groups if seen is None or each.vpc_id == seen.vpc_id),
            limits=self._reviewer.limits(pool), blocked_subnet_ids=self._fleet.blocked(now),
            goal=self._goal(intent, pool),
        )  # fmt: skip

    @staticmethod
    def _goal(intent: Intent, pool: Pool) -> Goal | None:
        if intent.kind is not IntentKind.ALLOCATE:
            return None
        attached = pool.attached()
        return Goal(attached + intent.want, attached + min(pool.counts().waiting, intent.want))

    @staticmethod
    def _must_read(intent: Intent, pool: Pool) -> bool:
        """What is being released may have left already, so an older reading would have it released twice."""
        return pool.reread or any(pool.states.get(each) is AddressState.RELEASING for each in intent.addresses)

    def held(self, intent_id: str, fence: int) -> OpenIntent:
        """The open intent, if `fence` is the one of its holder. Raises StaleFence."""
        opened = self._fleet.intents.get(intent_id)
        if opened is None or not opened.intent.holder or opened.intent.fence != fence:
            raise StaleFence(f"{intent_id} is not held with fence {fence} any more", remedy="stop, and claim it anew")
        return opened

    def record(
        self, intent_id: str, fence: int, steps: Sequence[Step], instance: Instance | None = None
    ) -> Goal | None:
        """Keeps the steps, by number, merges what the attempt has brought so far, and renews the lease. Returns an
        allocation's goal, which may have changed.

        Raises StaleFence for a step that is to begin while the service's level leaves such work out: the intent waits.
        """
        opened = self.held(intent_id, fence)
        if any(step.result is None for step in steps) and not self._reviewer.may(opened.intent.kind):
            self._reviewer.retry_later(opened, self._config.sweep_interval_s, "the service does no such work now")
            raise StaleFence("the service's level leaves such work out", remedy="stop, and claim it anew later")
        known = {step.number: step for step in opened.intent.steps}
        known.update({step.number: step for step in steps})
        opened.lease_until = self._clock.monotonic() + self._config.lease_s
        opened.intent = replace(
            opened.intent, steps=tuple(known[number] for number in sorted(known)),
            lease_until_at=self._clock.now() + self._config.lease_s,
        )  # fmt: skip
        self._fleet.mark("intent", intent_id)
        pool = self._fleet.pools.get(opened.intent.node)
        if pool is not None and instance is not None:
            before = pool.attached()
            self._merge(pool, Report(instance=instance), self._clock.monotonic())
            opened.grew |= pool.attached() > before
        if pool is None or not self._speaks(opened.intent, pool):
            return None
        opened.intent = replace(opened.intent, want=self._reviewer.want(pool))
        return self._goal(opened.intent, pool)

    @staticmethod
    def _speaks(intent: Intent, pool: Pool) -> bool:
        """Whether its node says what it wants now."""
        return intent.kind is IntentKind.ALLOCATE and pool.usage is not None and pool.connected

    def confirm_release(self, intent_id: str, fence: int, addresses: Sequence[str]) -> list[str]:
        opened = self.held(intent_id, fence)
        pool = self._fleet.pools.get(opened.intent.node)
        if pool is None or not self._reviewer.may(opened.intent.kind):
            return []
        return release.confirm(self._fleet, pool, [each for each in addresses if each in opened.intent.addresses])

    def complete(self, intent_id: str, fence: int, outcome: Outcome, report: Report) -> None:
        opened = self.held(intent_id, fence)
        now = self._clock.monotonic()
        pool = self._fleet.pools.get(opened.intent.node)
        before = pool.attached() if pool is not None else 0
        self._learn(report, now)
        if pool is not None:
            self._merge(pool, report, now)
        if pool is not None and pool.spec.name not in self._fleet.pools:
            return  # the instance is gone and with it the node; its intent is closed
        if isinstance(outcome, Retry) and not (outcome.failed and self._worn_out(opened.intent)):
            asked_s = min(outcome.after_s, self._config.retry_cap_s)
            opened.no_turn = outcome.no_turn
            if not outcome.failed:
                opened.intent = replace(opened.intent, attempts=max(opened.intent.attempts - 1, 0))
                opened.underway_since = min(opened.underway_since, now) if outcome.underway else math.inf
                lasted_s = max(now - opened.underway_since, 0.0)
                delay_s = min(max(asked_s, lasted_s * UNDERWAY_SHARE), self._config.retry_cap_s)
            else:
                opened.underway_since = math.inf
                delay_s = max(asked_s, self._reviewer.backoff_s(opened.intent.attempts, self._reviewer.cap_s(pool)))
            self._reviewer.retry_later(opened, delay_s, outcome.why)
        else:
            grew = opened.grew or (pool is not None and pool.attached() > before)
            if grew and opened.intent.kind is IntentKind.ALLOCATE and opened.opened_at > -math.inf:
                self._reviewer.wishes.time_to_address.arrived(now - opened.opened_at)
            self._close(opened.intent, outcome, pool, grew, now)
            if opened.intent.kind is IntentKind.RELEASE and pool is not None and owes(pool, now):
                self._reviewer.given_back(pool, len(opened.intent.addresses), now)
        if pool is not None:
            pool.error = "" if isinstance(outcome, Done) else outcome.why
            self._missed(pool, now)
            self._reviewer.review(pool)

    def _worn_out(self, intent: Intent) -> bool:
        return 0 < self._config.max_attempts <= intent.attempts

    def _learn(self, report: Report, now: float) -> None:
        self._fleet.learn(limits=report.limits, subnets=report.subnets, groups=report.security_groups)
        self._fleet.count(report.operations)
        before = self._fleet.throttle.by_budget.level
        self._fleet.throttle.by_budget.hear(now, report.operations, denied=report.denied)
        if self._fleet.throttle.by_budget.level != before:
            self._reviewer.review_all()
        for subnet_id, why in report.blocked_subnets.items():
            until_at = self._clock.now() + self._config.block_s
            self._fleet.block(Block(subnet_id, until_at, why), now + self._config.block_s)

    def _merge(self, pool: Pool, report: Report, now: float) -> None:
        if report.instance is not None and report.instance.id == pool.spec.instance_id:
            pool.reread = False
            self._fleet.merge_instance(pool, report.instance, now, count_free=True)
            pool.synced_at = self._clock.now()
        elif report.instance_gone:
            self._gone(pool, now)

    def _gone(self, pool: Pool, now: float) -> None:
        """A node that is connected lives, and the cloud's listings lag: its pools go only if the cloud insists."""
        gone = False
        for each in self._fleet.pools_of(pool.spec.instance_id):
            if not each.connected:
                self._fleet.remove_node(each)
                continue
            each.gone = True
            each.merged_at = now
            each.gone_since = now if each.gone_since is None else each.gone_since
            gone |= now - each.gone_since >= GONE_S
            if each is not pool:
                self._fleet.look(each, now)
            gone |= self._fleet.is_disputed(each)
        if gone:
            self._fleet.drop_instance(pool.spec.instance_id)

    def _missed(self, pool: Pool, now: float) -> None:
        """While the node cannot be told of its instance, the instance is read again, ever more seldom."""
        if not pool.gone and not pool.hidden(self._fleet.subnets):
            pool.misses = 0
            return
        pool.reread = True
        pool.misses += 1
        pause_s = min(self._config.retry_base_s * 2.0 ** min(pool.misses - 1, 30), MISSED_CAP_S)
        pool.holds[IntentKind.SYNC_INSTANCE] = now + pause_s

    def _close(self, intent: Intent, outcome: Outcome, pool: Pool | None, grew: bool, now: float) -> None:
        self._fleet.close_intent(intent.id)
        if isinstance(outcome, Done):
            self._fleet.drop_dead(intent)
            if pool is None:
                return
            pool.holds.pop(intent.kind, None)
            pool.replays.pop(intent.kind, None)
            # Done, but of no avail: whatever the reason, asking again at once will not help.
            fruitless = intent.kind is IntentKind.ALLOCATE and intent.want > 0 and not grew
            pool.fruitless = pool.fruitless + 1 if fruitless else 0
            if fruitless:
                cap_s = self._reviewer.cap_s(pool)
                pool.holds[intent.kind] = now + max(1.0, self._reviewer.backoff_s(pool.fruitless, cap_s))
            return
        replays = pool.replays.get(intent.kind, 0) if pool is not None else 0
        letter = DeadLetter(
            intent.id, replace(intent, holder="", last_error=outcome.why), outcome.why, self._clock.now(), replays
        )
        self._fleet.put_dead(letter)
        if pool is not None:
            pool.holds[intent.kind] = now + self._reviewer.rest_s(pool)

    def replay(self, letter_id: str) -> str:
        """Tries a dead letter again; returns the id of the intent that does. Raises NotFound."""
        letter = self._fleet.dead.get(letter_id)
        if letter is None:
            raise NotFound(f"no dead letter {letter_id}", field="id", remedy="list the dead letters")
        kind = letter.intent.kind
        pool = self._fleet.pools.get(letter.intent.node)
        if letter.intent.node and pool is None:
            raise NotFound(f"node {letter.intent.node} of that dead letter is gone", field="id")
        self._fleet.drop_dead(letter.intent)
        if pool is None:
            return self._reviewer.open(kind, addresses=letter.intent.addresses).id
        pool.holds.pop(kind, None)
        pool.replays[kind] = letter.replays + 1
        self._reviewer.review(pool)
        if not pool.intent_id:  # nothing is owed any more: see whether all is well
            return self._reviewer.open(IntentKind.SYNC_INSTANCE, pool).id
        return pool.intent_id
