"""PoolService: the use cases of IPAM for one account and region.

Single-threaded asyncio. Every use case changes memory without waiting, has the node reviewed, and then waits until the
change is durable; what workers, nodes and people are told is durable. The rules live in the modules that it composes:

    fleet    state and what must be written      review   what a node needs now
    claims   the workers' side                   release  the handshake before an address leaves
    resync   listings and leaks                  explain  why a node has what it has
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ipam import release, views
from ipam.claims import Claims
from ipam.config import IpamConfig
from ipam.degradation import Degradation
from ipam.durable import Outbox, Writer
from ipam.errors import AddressConflict, IpamError, NotFound, NotLeader
from ipam.explain import explain
from ipam.fleet import Fleet, restore
from ipam.levels import Levels
from ipam.model import (
    Claim,
    DeadLetter,
    Finding,
    Goal,
    Instance,
    Intent,
    IntentKind,
    Inventory,
    NodeSpec,
    Outcome,
    PoolInterface,
    Report,
    Step,
    Usage,
)
from ipam.pools import Pool
from ipam.ports import Capabilities, Clock, PoolStore, Queue
from ipam.resync import Resync
from ipam.retired import look_after, retire
from ipam.review import Reviewer
from ipam.siblings import is_over
from ipam.validation import in_lower_case, validate

LEADER_TTL_S = 15.0
QUEUE_AWAY_S = 1.0
RENEW_S = 5.0
SLICE = 50  # pools reviewed at once when time passes: a few milliseconds

log = logging.getLogger(__name__)
PoolChange = Callable[[str, Mapping[str, PoolInterface]], None]


class _Term:
    """All that lives as long as one term of leadership."""

    def __init__(self, service: PoolService, fleet: Fleet, leader: int) -> None:
        self.fleet = fleet
        self.leader = leader
        self.reviewer = Reviewer(service.config, service.capabilities, service.clock, fleet)
        self.claims = Claims(service.config, service.clock, fleet, self.reviewer)
        self.resync = Resync(service.config, service.clock, fleet, self.reviewer)
        self.levels = Levels(service.clock, fleet, self.reviewer)
        self.sweep_at = self.resync_at = service.clock.monotonic()
        self.collect_at = self.resync_at + service.config.collect_interval_s
        self.renew_at = self.resync_at + RENEW_S
        self.expires_at = self.resync_at + LEADER_TTL_S
        self.writer = Writer(
            service.store, fleet, leader, take=lambda: service._take(self), on_failure=service._write_failed
        )


class PoolService:
    """:param holder: name of this replica in the store's leadership row; unique among replicas.

    `on_pool_change(node, interfaces)` is called, once durable, with all interfaces that the node is to know; with none
    when the node is gone. `on_leadership(leads)` is called when this replica takes or loses the lead: streams of nodes
    must end when it is lost, so that they find the new leader.
    """

    def __init__(
        self,
        config: IpamConfig,
        capabilities: Capabilities,
        store: PoolStore,
        queue: Queue,
        clock: Clock,
        *,
        holder: str = "ipam",
        on_pool_change: PoolChange = lambda node, interfaces: None,
        on_leadership: Callable[[bool], None] = lambda leads: None,
    ) -> None:
        self.config = config
        self.capabilities = capabilities
        self.store = store
        self.queue = queue
        self.clock = clock
        self.holder = holder
        self.on_pool_change = on_pool_change
        self.on_leadership = on_leadership
        self._term: _Term | None = None
        self._last: Fleet | None = None
        self._sessions = 0
        self._sleeps_until = -math.inf
        self._wake = asyncio.Event()
        self._outbox = Outbox(queue, self._not_taken)

    # leadership

    @property
    def leads(self) -> bool:
        return self._term is not None

    async def start(self) -> bool:
        """Takes the lead and loads what the store has; returns whether this replica leads now."""
        leader = await self.store.lead(self.holder, LEADER_TTL_S)
        if leader is None:
            if self._last is not None:  # kept over a failed write, in vain: another replica has followed
                self._last = None
                self.on_leadership(False)
            return False
        if self._term is not None:
            return True
        stored = await self.store.load()
        fleet = restore(
            stored, now=self.clock.now(), monotonic=self.clock.monotonic(), lease_s=self.config.lease_s,
            backoff_cap_s=self.config.retry_cap_s, block_s=self.config.block_s,
        )  # fmt: skip
        self._carry_over(fleet)
        for pool in [each for each in fleet.pools.values() if not each.connected and is_over(each)]:
            fleet.remove_node(pool)
        self._term = term = _Term(self, fleet, leader)
        fleet.told.update(fleet.pools)
        for pool in fleet.pools.values():
            term.reviewer.review(pool)
        await self._commit(term)
        self.on_leadership(True)
        return True

    def _carry_over(self, fleet: Fleet) -> None:
        """After a failed write the connections live on; what they said is taken into the state that was loaded."""
        for name, old in (self._last.pools if self._last else {}).items():
            pool = fleet.pools.get(name)
            if pool is not None and pool.spec == old.spec:
                pool.usage, pool.connected, pool.session = old.usage, old.connected, old.session
                pool.forecast, pool.names = old.forecast, old.names
                pool.unanswered = dict.fromkeys(old.states, self.clock.monotonic() + release.QUARANTINE_S)
        self._last = None

    async def stop(self) -> None:
        """Gives the lead to whoever asks next."""
        self._step_down(keep=False)
        await self.store.resign(self.holder)

    def _step_down(self, *, keep: bool) -> None:
        term, self._term = self._term, None
        if term is None:
            return
        self._outbox.clear()
        self._last = term.fleet if keep else None
        if not keep:
            self.on_leadership(False)

    def _write_failed(self, error: Exception) -> None:
        log.warning("the store failed, starting anew from what it holds: %s", error)
        self._step_down(keep=True)
        self._wake.set()

    def _leading(self) -> _Term:
        if self._term is None:
            raise NotLeader(
                "this replica does not lead",
                remedy="ask another replica, or wait until one takes over",
                retry_after_s=1.0,
            )
        return self._term

    # nodes

    async def announce(self, spec: NodeSpec, usage: Usage, names: Collection[str] | None = None) -> int:
        """A node opens its connection with all that it uses. Returns the session, for `report` and `disconnected`.

        :param names: of all named pools that it has; None: it does not say. With its default pool's connection.
        Raises InvalidInput, and AddressConflict if another node that is connected holds the same instance.
        """
        term = self._leading()
        validate(spec)
        if self.capabilities.ids_ignore_case:
            spec = in_lower_case(spec)
        others = [each for each in term.fleet.pools_of(spec.instance_id) if each.spec.node != spec.node]
        for other in others:
            if other.connected:
                raise AddressConflict(
                    f"instance {spec.instance_id} is announced by node {other.spec.node}", field="instance_id",
                    remedy="give each node its own instance_id",
                )  # fmt: skip
        for other in others:
            term.fleet.remove_node(other)
        before = term.fleet.pools.get(spec.name)
        pool = term.fleet.put_node(spec)
        if pool is not before:
            pool.announced_at = self.clock.monotonic()
        release.abort(term.fleet, pool)
        pool.connected = True
        pool.names = None if names is None else frozenset(names)
        self._sessions += 1
        pool.session = self._sessions
        pool.gone = False
        pool.usage = usage
        term.reviewer.wishes.hear(pool, None, usage)
        pool.holds.clear()
        session = pool.session
        self._hurry(term, pool)
        term.fleet.told.add(spec.name)
        look_after(term.fleet, pool, self.clock.monotonic())
        await self._reviewed(term, pool)
        return session

    async def report(self, node: str, usage: Usage, session: int | None = None) -> None:
        """A node's newest usage. Older ones, and those of a connection that was followed by another, are ignored."""
        term = self._leading()
        pool = self._pool(term, node)
        if session not in (None, pool.session) or (pool.usage and usage.sequence < pool.usage.sequence):
            return
        before, pool.usage = pool.usage, usage
        term.reviewer.wishes.hear(pool, before, usage)
        release.hear(term.fleet, pool)
        look_after(term.fleet, pool, self.clock.monotonic())
        await self._reviewed(term, pool)

    async def disconnected(self, node: str, session: int | None = None) -> None:
        """The node's connection has ended. Nothing that only its answer could end goes on."""
        term = self._term
        fleet = term.fleet if term is not None else self._last
        pool = fleet.pools.get(node) if fleet is not None else None
        if pool is None or session not in (None, pool.session):
            return
        if term is None:
            pool.connected = False
            return
        pool.connected = False
        release.abort(term.fleet, pool)
        if pool.gone or is_over(pool):
            term.fleet.remove_node(pool)
        term.fleet.look(pool, self.clock.monotonic())
        await self._reviewed(term, pool)

    async def _reviewed(self, term: _Term, pool: Pool) -> None:
        if pool.spec.name in term.fleet.pools:
            term.reviewer.review(pool)
        await self._commit(term)

    def _hurry(self, term: _Term, pool: Pool) -> None:
        """An intent that waits for its next attempt may succeed now, since the node came with news."""
        opened = term.fleet.intents.get(pool.intent_id)
        now = self.clock.monotonic()
        if opened is not None and not opened.leased(now) and opened.ready_at > now:
            opened.ready_at = now
            term.reviewer.enqueue(opened.intent)

    # reading

    def interfaces(self, node: str) -> dict[str, PoolInterface]:
        """What the node is told. Raises NotFound, NotLeader."""
        term = self._leading()
        return self._pool(term, node).interfaces(term.fleet.subnets)

    def pool(self, node: str) -> views.PoolView:
        term = self._leading()
        return views.view_pool(term.fleet, term.reviewer, self._pool(term, node))

    def pools(self) -> list[views.PoolView]:
        """All pools by name."""
        term = self._leading()
        return [views.view_pool(term.fleet, term.reviewer, pool) for _, pool in sorted(term.fleet.pools.items())]

    def explain(self, node: str) -> list[Finding]:
        """Why a pool has what it has; asked of a node's default pool, of its named ones too.

        Raises NotFound, NotLeader."""
        term = self._leading()
        pool = self._pool(term, node)
        found = explain(term.fleet, term.reviewer, self.config, pool, now=self.clock.monotonic())
        for each in term.fleet.pools_of(pool.spec.instance_id) if not pool.spec.pool else ():
            if each is not pool:
                more = explain(term.fleet, term.reviewer, self.config, each, now=self.clock.monotonic())
                found += [replace(one, message=f"pool {each.spec.pool}: {one.message}") for one in more]
        return found

    def names(self) -> list[str]:
        """Of all pools, in order. Raises NotLeader."""
        return sorted(self._leading().fleet.pools)

    def status(self, in_need: tuple[int, int] | None = None) -> views.Status:
        """:param in_need: pools in deficit and at capacity, where they were counted already."""
        if self._term is None:
            return views.Status(False, 0, 0, 0, 0, 0, (), (), 0.0)
        return views.view_status(
            self._term.fleet,
            views.categories(self._term.fleet, self._term.reviewer) if in_need is None else in_need,
            last_resync_at=self._term.resync.last_at,
            now=self.clock.now(),
            exhaustions=self._term.resync.exhaustions(),
        )

    def intents(self, node: str = "") -> list[Intent]:
        """Open intents, oldest first; of one node if it is named."""
        opened = [each.intent for each in self._leading().fleet.intents.values()]
        return sorted((each for each in opened if node in ("", each.node)), key=lambda each: (each.created_at, each.id))

    def dead_letters(self) -> list[DeadLetter]:
        return sorted(self._leading().fleet.dead.values(), key=lambda each: (each.died_at, each.id))

    def dead_letter(self, letter_id: str) -> DeadLetter:
        letter = self._leading().fleet.dead.get(letter_id)
        if letter is None:
            raise NotFound(f"no dead letter {letter_id}", field="id", remedy="list the dead letters")
        return letter

    @staticmethod
    def _pool(term: _Term, node: str) -> Pool:
        pool = term.fleet.pools.get(node)
        if pool is None:
            raise NotFound(
                f"no node {node}", field="node", remedy="list the nodes; the node may not have announced itself"
            )
        return pool

    # operators

    async def replay(self, letter_id: str) -> str:
        term = self._leading()
        intent_id = term.claims.replay(letter_id)
        await self._commit(term)
        return intent_id

    async def resync(self) -> str:
        """Asks for a full listing now; returns the id of the intent that does it."""
        term = self._leading()
        intent_id = term.reviewer.open_single(IntentKind.RESYNC)
        await self._commit(term)
        return intent_id

    async def set_level(self, level: Degradation, *, lasts_s: float = 0.0, why: str = "") -> views.LevelView:
        """Has the service do no more than `level` allows, for `lasts_s`; 0: until it is set anew. Durable."""
        term = self._leading()
        term.levels.set(level, lasts_s=lasts_s, why=why)
        await self._commit(term)
        return views.view_level(term.fleet, self.clock.now())

    # workers

    async def claim(self, intent_id: str, holder: str) -> Claim | None:
        term = self._leading()
        claim = term.claims.claim(intent_id, holder)
        await self._commit(term)
        return claim

    def known(self, intent_id: str) -> bool:
        """Whether the intent is open, so that a refused claim can be told apart: closed, or held by another."""
        return intent_id in self._leading().fleet.intents

    async def record(
        self, intent_id: str, fence: int, steps: Sequence[Step], instance: Instance | None = None
    ) -> Goal | None:
        term = self._leading()
        goal = term.claims.record(intent_id, fence, steps, instance)
        await self._commit(term)
        return goal

    async def confirm_release(self, intent_id: str, fence: int, addresses: Sequence[str]) -> list[str]:
        term = self._leading()
        allowed = term.claims.confirm_release(intent_id, fence, addresses)
        await self._commit(term)
        return allowed

    async def complete(self, intent_id: str, fence: int, outcome: Outcome, report: Report) -> None:
        term = self._leading()
        opened = term.claims.held(intent_id, fence)
        if opened.intent.kind is IntentKind.COLLECT:
            term.resync.forget(opened.intent.addresses)
        term.claims.complete(intent_id, fence, outcome, report)
        pool = term.fleet.pools.get(opened.intent.node)
        if pool is not None and not pool.connected:
            term.fleet.look(pool, self.clock.monotonic())
            if is_over(pool):
                term.fleet.remove_node(pool)
        await self._commit(term)

    async def inventory_page(self, intent_id: str, fence: int, page: Inventory) -> tuple[int, int]:
        """Merges a page of a listing; returns how many instances of ours it had, and how many of them differed."""
        term = self._leading()
        merged = term.resync.page(term.claims.held(intent_id, fence), page)
        await self._commit(term)
        return merged

    # time

    async def run(self) -> None:
        """Until cancelled: leads if it can, and does what time makes due."""
        while True:
            try:
                await self.tick()
            except IpamError as error:
                log.warning("will try again: %s", error)
            self._wake.clear()
            now = self.clock.monotonic()
            looks_at = self._term.fleet.next_look() if self._term is not None else math.inf
            sleep_s = min(max(looks_at - now, 0.01), 1.0)
            self._sleeps_until = now + sleep_s
            try:
                await asyncio.wait_for(self._wake.wait(), sleep_s)
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """Does all that is due by now."""
        await self._lead()
        term = self._term
        if term is None:
            return
        now = self.clock.monotonic()
        term.levels.tend()
        term.fleet.blocked(now)  # what is passed over no longer is told so
        for number, pool in enumerate(term.fleet.due(now), start=1):
            if term.fleet.pools.get(pool.spec.name) is pool:
                retire(term.fleet, pool, self.config, self.capabilities, now)
                term.reviewer.review(pool)
            if number % SLICE == 0:
                await asyncio.sleep(0)  # after a change of level all are due at once, and nodes wait
        if self._term is not term:
            return
        if now >= term.sweep_at:
            term.sweep_at = now + self.config.sweep_interval_s
            term.reviewer.sweep(now)
        if now >= term.resync_at:
            term.resync_at = now + self.config.resync_interval_s
            if term.reviewer.may(IntentKind.RESYNC):
                term.reviewer.open_single(IntentKind.RESYNC)
        if now >= term.collect_at:
            term.collect_at = now + self.config.collect_interval_s
            leaked = term.resync.leaked()
            if leaked and term.reviewer.may(IntentKind.COLLECT):
                term.reviewer.open_single(IntentKind.COLLECT, tuple(leaked))
        await self._commit(term)

    async def _lead(self) -> None:
        term = self._term
        now = self.clock.monotonic()
        if term is None:
            await self.start()
        elif now >= term.renew_at:
            try:
                leader = await self.store.lead(self.holder, LEADER_TTL_S)
            except IpamError as error:
                log.warning("cannot renew the lead: %s", error)
                leader = term.leader if now < term.expires_at else None
            else:
                term.expires_at = now + LEADER_TTL_S
            term.renew_at = now + RENEW_S
            if leader != term.leader:
                self._step_down(keep=False)

    # after a change

    async def _commit(self, term: _Term) -> None:
        if term.fleet.next_look() < self._sleeps_until:
            self._wake.set()
        await term.writer.commit()

    def _take(self, term: _Term) -> Callable[[], None]:
        told, term.fleet.told = term.fleet.told, set()
        outbox, term.reviewer.outbox = term.reviewer.outbox, []

        def tell() -> None:
            if self._term is not term:
                return
            for name in told:
                pool = term.fleet.pools.get(name)
                self.on_pool_change(name, pool.interfaces(term.fleet.subnets) if pool is not None else {})
            if outbox:
                self._outbox.send(outbox)

        return tell

    def _not_taken(self, intent_ids: Sequence[str]) -> None:
        if self._term is not None:
            self._term.reviewer.not_taken(intent_ids)
            self._term.sweep_at = min(self._term.sweep_at, self.clock.monotonic() + QUEUE_AWAY_S)

    async def settle(self) -> None:
        """Waits until all that is durable has been handed to the queue."""
        await self._outbox.settle()
