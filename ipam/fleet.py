"""All that the service holds in memory of one account: its pools, the work it owes, the facts it learnt.

Memory is the truth while a replica leads. A change here marks what it touched; `take_changes` turns the marks into one
transaction, so that any number of changes between two writes cost one. Nothing here waits, so nothing needs a lock.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ipam.asked import Asked
from ipam.degradation import ByBudget, ByHand, Throttle, by_hand
from ipam.model import (
    AddressKey,
    AddressState,
    CloudInterface,
    DeadLetter,
    Instance,
    Intent,
    IntentKind,
    Limits,
    NodeSpec,
    OperationCount,
    SecurityGroup,
    Subnet,
)
from ipam.owners import NONE, Held, Owners, held, key_of, without
from ipam.plan import pod_addresses
from ipam.pools import Pool
from ipam.ports import Block, Changes, Stored
from ipam.siblings import home_of, merged


@dataclass(slots=True)
class OpenIntent:
    """An intent with its times on the monotonic clock, which no jump of the wall clock disturbs.

    :ivar opened_at: by this replica; without end in the past if another one did.
    :ivar urgent: pods wait for what it brings.
    :ivar no_turn: it waits for nothing but its turn within the budget.
    :ivar underway_since: the cloud has been at work on it since then.
    :ivar grew: its node was told of addresses that it brought, before it is done.
    """

    intent: Intent
    ready_at: float
    claimed_at: float = -math.inf
    lease_until: float = -math.inf
    enqueued_at: float = -math.inf
    sweeps: int = 0
    opened_at: float = -math.inf
    urgent: bool = False
    no_turn: bool = False
    grew: bool = False
    underway_since: float = math.inf

    def leased(self, monotonic: float) -> bool:
        return bool(self.intent.holder) and monotonic < self.lease_until


class Fleet:
    """State of one account and region. Times given to it are monotonic seconds."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self.of_instance: dict[str, list[str]] = {}  # instance id -> its node's pools
        self.owners = Owners()
        self.disputes: dict[AddressKey, str] = {}  # address -> node that claims it beside its owner
        self.intents: dict[str, OpenIntent] = {}
        self.dead: dict[str, DeadLetter] = {}
        self.limits: dict[str, Limits] = {}
        self.subnets: dict[str, Subnet] = {}
        self.groups: dict[str, SecurityGroup] = {}
        self.blocks: dict[str, tuple[Block, float]] = {}  # subnet id -> block, monotonic end
        self.operations: dict[str, list[int]] = {}  # operation -> calls, throttled, failed
        self.throttle = Throttle(ByHand(), ByBudget())
        self.asked = Asked()
        self.memos: dict[str, Mapping[str, object]] = {}  # what is remembered beside the tables, by name
        self.told: set[str] = set()  # nodes whose view changed since it was last told
        self._dead_of: dict[tuple[str, IntentKind], str] = {}
        self._looks: list[tuple[float, str]] = []
        self._dirty: dict[str, set[Any]] = {}

    # marks

    def mark(self, table: str, key: str | AddressKey) -> None:
        self._dirty.setdefault(table, set()).add(key)

    @property
    def dirty(self) -> bool:
        return bool(self._dirty)

    def take_changes(self) -> Changes:
        """What the marks stand for, as of now; clears them."""
        dirty, self._dirty = self._dirty, {}
        nodes = dirty.get("node", ())
        instances = dirty.get("instance", ())
        known = {i: pools[0].instance for i in instances if (pools := self.pools_of(i)) and pools[0].instance}
        intents = dirty.get("intent", ())
        dead = dirty.get("dead", ())
        blocks = dirty.get("block", ())
        memos = dirty.get("memo", ())
        states: dict[AddressKey, AddressState] = {}
        for instance_id in known:
            for pool in self.pools_of(instance_id):
                for address, state in pool.states.items():
                    states[key_of(pool, address)] = state
        for key in dirty.get("state", ()):
            if owner := self.owners.get(key):
                states[key] = self.pools[owner].states.get(key[1], AddressState.AVAILABLE)
        return Changes(
            nodes=[self.pools[name].spec for name in nodes if name in self.pools],
            removed_nodes=[name for name in nodes if name not in self.pools],
            instances=list(known.values()),
            removed_instances=[instance_id for instance_id in instances if instance_id not in known],
            address_states=states,
            intents=[self.intents[i].intent for i in intents if i in self.intents],
            closed_intents=[i for i in intents if i not in self.intents],
            dead_letters=[self.dead[i] for i in dead if i in self.dead],
            removed_dead_letters=[i for i in dead if i not in self.dead],
            limits=[self.limits[i] for i in dirty.get("limits", ())],
            subnets=[self.subnets[i] for i in dirty.get("subnet", ()) if i in self.subnets],
            security_groups=[self.groups[i] for i in dirty.get("group", ()) if i in self.groups],
            blocks=[self.blocks[i][0] for i in blocks if i in self.blocks],
            removed_blocks=[i for i in blocks if i not in self.blocks],
            memos={i: self.memos[i] for i in memos if i in self.memos},
            removed_memos=[i for i in memos if i not in self.memos],
        )

    def remember(self, name: str, what: Mapping[str, object] | None) -> None:
        """Keeps a note over restarts; None forgets it."""
        if what is not None:
            self.memos[name] = what
        elif self.memos.pop(name, None) is None:
            return
        self.mark("memo", name)

    # looks

    def look(self, pool: Pool, at: float) -> None:
        """Has the pool reviewed at `at`, or sooner."""
        if at < pool.look_at:
            pool.look_at = at
            heapq.heappush(self._looks, (at, pool.spec.name))

    def due(self, monotonic: float) -> list[Pool]:
        due = []
        while self._looks and self._looks[0][0] <= monotonic:
            at, name = heapq.heappop(self._looks)
            pool = self.pools.get(name)
            if pool is not None and pool.look_at == at:
                pool.look_at = math.inf
                due.append(pool)
        return due

    def next_look(self) -> float:
        return self._looks[0][0] if self._looks else math.inf

    # nodes

    def pools_of(self, instance_id: str) -> list[Pool]:
        """The pools of an instance. They share what is known of it, and each owns addresses of its own."""
        return [self.pools[name] for name in self.of_instance.get(instance_id, ())]

    def addresses(self, pool: Pool) -> frozenset[str]:
        """Every address that the pool owns, also of interfaces that carry no pods. What is no pool's is the first's."""
        return frozenset().union(*self._held(pool).values())

    def _held(self, pool: Pool) -> Held:
        if pool.instance is None:
            return {}
        pools = self.pools_of(pool.instance.id)
        return held(pool, (each for each in pool.instance.interfaces if home_of(each, pools) is pool))

    def put_node(self, spec: NodeSpec) -> Pool:
        pool = self.pools.get(spec.name)
        if pool is not None and pool.spec.instance_id != spec.instance_id:
            self.remove_node(pool)  # with all that was owed to another instance
            pool = None
        if pool is None:
            pool = self.pools[spec.name] = Pool(spec)
            self._join(pool)
            self.mark("node", spec.name)
        elif pool.spec != spec:
            before = self._held(pool)
            pool.spec = spec
            self._settle({pool: before})  # primary addresses may carry pods now, or no more
            self.mark("node", spec.name)
            self.told.add(spec.name)
        return pool

    def _join(self, pool: Pool) -> None:
        """Another pool of its instance: what was nobody's may be its own."""
        siblings = self.pools_of(pool.spec.instance_id)
        before = {each: self._held(each) for each in siblings}
        self.of_instance.setdefault(pool.spec.instance_id, []).append(pool.spec.name)
        if siblings and siblings[0].instance is not None:
            pool.instance = siblings[0].instance
            pool.reread = True  # nobody has looked after its interfaces until now
            self._settle({**before, pool: {}})

    def remove_node(self, pool: Pool) -> None:
        name = pool.spec.name
        siblings = [each for each in self.pools_of(pool.spec.instance_id) if each is not pool]
        before = {each: self._held(each) for each in siblings}
        self._forget_instance(pool)
        if pool.intent_id:
            self.close_intent(pool.intent_id)
        for kind in IntentKind:
            self._forget_dead(name, kind)
        for key in [each for each, claimant in self.disputes.items() if claimant == name]:
            del self.disputes[key]
        self.of_instance[pool.spec.instance_id].remove(name)
        if not siblings:
            del self.of_instance[pool.spec.instance_id]
        self._settle(before)  # its interfaces stay where they are, and are the first pool's to watch
        self.remember(f"warmed/{name}", None)
        del self.pools[name]
        self.mark("node", name)
        self.told.add(name)

    def drop_instance(self, instance_id: str) -> None:
        """Forgets the instance with all its addresses, of all its pools."""
        for pool in self.pools_of(instance_id):
            self._forget_instance(pool)

    def _forget_instance(self, pool: Pool) -> None:
        if pool.instance is not None:
            before = {pool: self._held(pool)}
            self.mark("instance", pool.instance.id)
            pool.instance = None
            self._settle(before)
        self.told.add(pool.spec.name)

    # instances and their addresses

    def merge_instance(self, pool: Pool, instance: Instance, monotonic: float, *, count_free: bool = False) -> bool:
        """Takes what the cloud says of the pool's instance; returns whether that differs from what was known.

        Of interfaces of the instance's other pools nothing is taken: their own workers may know better by now.
        An address that another node holds is not taken from it: both instances are read again, and the first owner
        keeps it until the cloud no longer says so. `count_free` keeps the subnets' free counts in step.
        """
        pool.merged_at = monotonic
        pools = self.pools_of(instance.id)
        for each in pools:
            each.gone = False
            each.gone_since = None
        instance = merged(pool, pools, instance)
        if instance == pool.instance:
            return False
        instance = self._without_disputed(pool, instance)
        if instance == pool.instance:
            return False
        old = {each: self._held(each) for each in pools}
        if count_free and pool.instance is not None:
            self._count_free(pool.instance.interfaces, instance.interfaces)
        for each in pools:
            each.instance = instance
            if each is not pool:
                self.look(each, monotonic)  # it shares the instance's limits
        self._settle(old)
        self.mark("instance", instance.id)
        self.told.update(each.spec.name for each in pools)
        return True

    def _without_disputed(self, pool: Pool, instance: Instance) -> Instance:
        name = pool.spec.name
        pools = self.pools_of(instance.id)
        names = {each.spec.name for each in pools}
        disputed = set()
        seen: set[str] = set()
        if self.disputes:
            claimed = held(pool, instance.interfaces)
            for key in [each for each, node in self.disputes.items() if node in names]:
                if key[1] not in claimed.get(key[0], ()):
                    del self.disputes[key]
        for interface in instance.interfaces:
            home = home_of(interface, pools) or pool
            owners = self.owners.within(interface.vpc_id)
            for address in pod_addresses(home.spec, interface):
                owner = owners.get(address, name)
                if owner not in names and self.pools[owner].gone:
                    # The cloud has said so twice, in two ways.
                    self.drop_instance(self.pools[owner].spec.instance_id)
                elif owner not in names:
                    disputed.add(address)
                    if self.disputes.get((interface.vpc_id, address)) not in names:
                        self.disputes[interface.vpc_id, address] = home.spec.name
                        self.pools[owner].reread = True
                        self.look(self.pools[owner], -math.inf)
                elif address in seen:
                    disputed.add(address)
                seen.add(address)
        if not disputed:
            return instance
        return replace(instance, interfaces=tuple(without(each, disputed) for each in instance.interfaces))

    def is_disputed(self, pool: Pool) -> bool:
        """Whether another node claims an address of the pool."""
        return any(self.owners.get(key) == pool.spec.name for key in self.disputes)

    def _settle(self, before: Mapping[Pool, Held]) -> None:
        """Brings owners and states in line with what these pools own now. `before`: what they owned."""
        after = {pool: self._held(pool) for pool in before}
        for pool, old in before.items():
            for vpc_id, addresses in old.items():
                if gone := addresses - after[pool].get(vpc_id, NONE):
                    self.owners.take(vpc_id, gone)
                    self._lost(pool, vpc_id, gone)
        for pool, old in before.items():
            for vpc_id, addresses in after[pool].items():
                if new := addresses - old.get(vpc_id, NONE):
                    self.owners.give(vpc_id, new, pool.spec.name)

    def _lost(self, pool: Pool, vpc_id: str, addresses: Iterable[str]) -> None:
        for address in addresses:
            if pool.states.pop(address, None) is not None:
                self.mark("state", (vpc_id, address))
            pool.unanswered.pop(address, None)
            claimant = self.pools.get(self.disputes.pop((vpc_id, address), ""))
            if claimant is not None:
                claimant.reread = True
                self.look(claimant, -math.inf)

    def _count_free(self, old: Iterable[CloudInterface], new: Iterable[CloudInterface]) -> None:
        change: Counter[str] = Counter()
        for interface in new:
            change[interface.subnet_id] += 1 + len(interface.all_addresses)
        for interface in old:
            change[interface.subnet_id] -= 1 + len(interface.all_addresses)
        for subnet_id, count in change.items():
            if count and subnet_id in self.subnets:
                subnet = self.subnets[subnet_id]
                self.subnets[subnet_id] = replace(subnet, free=max(subnet.free - count, 0))

    def set_state(self, pool: Pool, address: str, state: AddressState) -> None:
        if state is AddressState.AVAILABLE:
            pool.states.pop(address, None)
        else:
            pool.states[address] = state
        self.mark("state", key_of(pool, address))
        self.told.add(pool.spec.name)

    # intents

    def put_intent(self, opened: OpenIntent) -> None:
        self.intents[opened.intent.id] = opened
        if opened.intent.node:
            self.pools[opened.intent.node].intent_id = opened.intent.id
        self.mark("intent", opened.intent.id)

    def close_intent(self, intent_id: str) -> None:
        opened = self.intents.pop(intent_id, None)
        if opened is None:
            return
        pool = self.pools.get(opened.intent.node)
        if pool is not None and pool.intent_id == intent_id:
            pool.intent_id = ""
        self.mark("intent", intent_id)

    def put_dead(self, letter: DeadLetter) -> None:
        """Keeps one dead letter of a node and kind, so that their number is bounded: the newest, under its first id."""
        known = self.dead_letter_of(letter.intent.node, letter.intent.kind)
        if known is not None:
            letter = replace(letter, id=known.id)
        self.dead[letter.id] = letter
        self._dead_of[letter.intent.node, letter.intent.kind] = letter.id
        self.mark("dead", letter.id)

    def drop_dead(self, like: Intent) -> None:
        """Forgets the dead letter of the intent's node and kind, if there is one."""
        self._forget_dead(like.node, like.kind)

    def _forget_dead(self, node: str, kind: IntentKind) -> None:
        letter_id = self._dead_of.pop((node, kind), "")
        if self.dead.pop(letter_id, None) is not None:
            self.mark("dead", letter_id)

    def dead_letter_of(self, node: str, kind: IntentKind) -> DeadLetter | None:
        return self.dead.get(self._dead_of.get((node, kind), ""))

    # facts

    def learn(self, *, limits: Limits | None, subnets: Iterable[Subnet], groups: Iterable[SecurityGroup]) -> None:
        if limits is not None and self.limits.get(limits.instance_type) != limits:
            self.limits[limits.instance_type] = limits
            self.mark("limits", limits.instance_type)
        for subnet in subnets:
            known = self.subnets.get(subnet.id)
            if known == subnet:
                continue
            self.subnets[subnet.id] = subnet
            self.mark("subnet", subnet.id)
            if known is None or _told_of(known) != _told_of(subnet):
                self.told.update(self.pools)  # what is told of an interface tells of its subnet
        for group in groups:
            if self.groups.get(group.id) != group:
                self.groups[group.id] = group
                self.mark("group", group.id)

    def keep(self, *, subnets: set[str], groups: set[str]) -> None:
        """Forgets subnets and groups that a complete listing did not have, and that no interface of ours lies in."""
        gone = self.subnets.keys() - subnets
        if gone:
            held = [pool.instance for pool in self.pools.values() if pool.instance is not None]
            gone -= {interface.subnet_id for instance in held for interface in instance.interfaces}
        for subnet_id in gone:
            del self.subnets[subnet_id]
        for group_id in self.groups.keys() - groups:
            del self.groups[group_id]

    def block(self, block: Block, until: float) -> None:
        self.blocks[block.subnet_id] = (block, until)
        self.mark("block", block.subnet_id)

    def unblock(self, subnet_id: str) -> None:
        """Addresses have come back to it."""
        if self.blocks.pop(subnet_id, None) is not None:
            self.mark("block", subnet_id)

    def blocked(self, monotonic: float) -> frozenset[str]:
        for subnet_id in [i for i, (_, until) in self.blocks.items() if until <= monotonic]:
            del self.blocks[subnet_id]
            self.mark("block", subnet_id)
        return frozenset(self.blocks)

    def count(self, operations: Iterable[OperationCount]) -> None:
        for each in operations:
            totals = self.operations.setdefault(each.operation, [0, 0, 0])
            totals[0] += each.calls
            totals[1] += each.throttled
            totals[2] += each.failed


def _told_of(subnet: Subnet) -> tuple[object, ...]:
    """What a node hears of the subnet of its interface."""
    return subnet.cidr, subnet.vpc_cidrs, subnet.gateway, subnet.ipv6_cidr


def restore(
    stored: Stored, *, now: float, monotonic: float, lease_s: float, backoff_cap_s: float, block_s: float
) -> Fleet:
    """The fleet as the store has it. Durations are clamped, since the wall clock may have jumped meanwhile.

    Handshakes begin anew: no node has answered this replica yet. What is being released stays so.
    """
    fleet = Fleet()
    instances = {instance.id: instance for instance in stored.instances}
    for spec in stored.nodes:
        fleet.put_node(spec).announced_at = monotonic
    for pool in fleet.pools.values():
        instance = instances.get(pool.spec.instance_id)
        if instance is not None:
            # A listing that began before is older than what was merged and written meanwhile.
            fleet.merge_instance(pool, instance, monotonic)
    for key, state in stored.address_states.items():
        owner = fleet.pools.get(fleet.owners.get(key))
        if owner is not None and state is AddressState.RELEASING:
            owner.states[key[1]] = state
    fleet.memos = dict(stored.memos)
    fleet.throttle.by_hand = by_hand(stored.memos.get("level"))
    for pool in fleet.pools.values():
        pool.warmed = f"warmed/{pool.spec.name}" in fleet.memos
    fleet.learn(limits=None, subnets=stored.subnets, groups=stored.security_groups)
    fleet.limits = {limits.instance_type: limits for limits in stored.limits}
    for block in stored.blocks:
        fleet.blocks[block.subnet_id] = (block, monotonic + min(max(block.until_at - now, 0.0), block_s))
    letters = [each for each in stored.dead_letters if not each.intent.node or each.intent.node in fleet.pools]
    for letter in sorted(letters, key=lambda each: each.died_at):
        fleet.put_dead(letter)
    fleet._dirty.clear()
    fleet.told.clear()
    for letter in stored.dead_letters:
        if letter.id not in fleet.dead:
            fleet.mark("dead", letter.id)
    for instance_id in instances.keys() - fleet.of_instance.keys():
        fleet.mark("instance", instance_id)
    for key, state in stored.address_states.items():
        if state is not AddressState.RELEASING:
            fleet.mark("state", key)
    for intent in sorted(stored.intents, key=lambda each: (not each.holder, each.created_at)):
        ready_at = monotonic + min(max(intent.not_before_at - now, 0.0), backoff_cap_s)
        lease = min(max(intent.lease_until_at - now, 0.0), lease_s) if intent.holder else -math.inf
        node = fleet.pools.get(intent.node)
        if intent.node and (node is None or node.intent_id):
            fleet.mark("intent", intent.id)  # written off: the node is gone or owes another one already
            continue
        fleet.put_intent(OpenIntent(intent, ready_at, lease_until=monotonic + lease, claimed_at=monotonic))
    return fleet
