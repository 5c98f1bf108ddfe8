"""What calls do at the cloud, and which calls an intent needs: plan.py's plans, carried out in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ipam.allocation import ROUNDS
from ipam.errors import SubnetExhausted
from ipam.model import IntentKind, Operation, members
from ipam.plan import (
    Plan,
    PlannedAssign,
    PlannedCreate,
    Shortfall,
    attached,
    call_limits,
    lends_primary,
    plan_allocation,
    serving,
)
from ipam.simulation.account import Account, Call, Schedule, Work
from ipam.simulation.model import CloudRules, Variant
from ipam.simulation.nodes import Node, Port
from ipam.simulation.space import Space


@dataclass(slots=True)
class Ended:
    """How an attempt ended. `short`: why it brought fewer than wanted; None: it did not."""

    work: Work
    short: Shortfall | None = None


class SimulatedCloud:
    """Performs intents. `account` is set once that exists, since each needs the other.

    :param ended: is told of each attempt that a worker has done with.
    :param want: addresses that a node should ask for now.
    :param retry: of each that the cloud throttled.
    """

    account: Account

    def __init__(
        self, rules: CloudRules, variant: Variant, spaces: Mapping[str, Space], schedule: Schedule,
        ended: Callable[[Ended], None], retry: Callable[[Work], None], want: Callable[[Node], int],
    ) -> None:  # fmt: skip
        self._rules = rules
        self._spaces = spaces
        self._schedule = schedule
        self._ended = ended
        self._retry = retry
        self._want = want
        self._can = call_limits(rules.capabilities)
        can = rules.capabilities
        goes = variant.config.delete_on_termination and can.delete_on_termination
        self._protects = goes and not can.protects_on_create
        self._whole = variant.fifo
        self._block_s = variant.config.block_s
        self._blocked: dict[str, float] = {}
        self._taken: dict[Work, tuple[list[str], list[str]]] = {}
        self._serial = 0

    # of the account's line

    def begin(self, work: Work) -> None:
        if work.calls:  # what a throttled attempt left
            self.account.acquire(work)
        elif work.kind is IntentKind.ALLOCATE:
            # As it makes sense now: what was missing when it was opened may be more by now, or nothing.
            want = self._want(work.node)
            work.goal = work.node.held + want
            if want:
                self._plan(work)
            else:
                work.cancelled = True
                self._finish(work)
        else:
            self._release(work)

    def decided(self, work: Work) -> bool:
        if work.kind is not IntentKind.ALLOCATE or work.begun:
            return True
        want = self._want(work.node)
        work.goal = work.node.held + want
        work.calls.clear()
        plan = self._decide(work) if want else Plan()
        if not work.calls:
            work.cancelled = not want
            self._finish(work, plan)
        return bool(work.calls)

    def throttled(self, work: Work) -> None:
        self._retry(work)

    def admitted(self, work: Work) -> None:
        call = work.calls[0]
        planned = call.planned
        try:
            if call.operation is Operation.CREATE_INTERFACE and isinstance(planned, PlannedCreate):
                space = self._spaces[planned.subnet_id]
                blocks = space.take_blocks(planned.prefix_count) if planned.prefix_count else []
                try:
                    self._taken[work] = space.take(1 + planned.secondary_count), blocks
                except SubnetExhausted:
                    space.give_back([], blocks)
                    raise
            elif isinstance(planned, PlannedAssign):
                space = self._spaces[planned.subnet_id]
                prefixes = planned.prefix_size > 0
                self._taken[work] = (
                    ([], space.take_blocks(planned.count)) if prefixes else (space.take(planned.count), [])
                )
        except SubnetExhausted:
            work.refused = planned.subnet_id if planned is not None else ""

    def answered(self, work: Work) -> None:
        call = work.calls.popleft()
        if work.refused:
            self._refused(work)
            return
        self._apply(work, call)
        if work.calls:
            self.account.acquire(work)
        else:
            self._finish(work)

    # what an intent needs

    def _plan(self, work: Work) -> None:
        work.rounds += 1
        plan = self._decide(work)
        if work.calls:
            work.decided_at = self._schedule.now
            self.account.acquire(work)
        else:
            self._finish(work, plan)

    def _decide(self, work: Work) -> Plan:
        """Its calls: all, or those that serve the pods that wait."""
        node = work.node
        now = self._schedule.now
        # What the pool knows is what is, unless an earlier plan of this attempt has changed it.
        instance = node.instance() if work.rounds > 1 else node.pool.instance
        assert instance is not None
        blocked = frozenset(id for id, until in self._blocked.items() if until > now)
        plan = plan_allocation(
            node.spec, instance, want=work.goal - attached(node.spec, instance), limits=self._rules.types[node.type],
            calls=self._can, subnets=[each.subnet() for each in self._near(node)], security_groups=(), blocked=blocked,
        )  # fmt: skip
        if plan.shortfall is Shortfall.NO_SUBNET:
            self._note_dry(node)
        waiting = 0 if self._whole else len(node.line) - sum(len(addresses) for _, addresses in work.brought)
        for planned in serving(plan.calls, waiting) if waiting > 0 else plan.calls:
            if isinstance(planned, PlannedAssign):
                operation = Operation.ASSIGN_PREFIXES if planned.prefix_size else Operation.ASSIGN_ADDRESSES
                work.calls.append(Call(operation, planned))
            else:
                work.calls.append(Call(Operation.CREATE_INTERFACE, planned))
                work.calls.append(Call(Operation.ATTACH_INTERFACE))
                if self._protects:
                    work.calls.append(Call(Operation.PROTECT_INTERFACE))
        return plan

    def _near(self, node: Node) -> list[Space]:
        return [space for space in self._spaces.values() if space.rule.zone == node.zone]

    def _note_dry(self, node: Node) -> None:
        """The node wanted more than these have: those of its zone without room for an interface, at least one."""
        near = self._near(node)
        dry = [space for space in near if space.free < 2] or [min(near, key=lambda space: space.free)]
        for space in dry:
            space.refuse(self._schedule.now)

    def _refused(self, work: Work) -> None:
        """Others were faster. What the subnet still has is planned for anew; one without any is passed over."""
        space = self._spaces[work.refused]
        space.refuse(self._schedule.now)
        if not space.free:
            self._blocked[work.refused] = self._schedule.now + self._block_s
        work.refused = ""
        work.calls.clear()
        if work.rounds < ROUNDS:
            self._plan(work)
        else:
            self._finish(work)

    def _release(self, work: Work) -> None:
        """The check at the moment of release: what pods got meanwhile is fenced no more, and stays."""
        node = work.node
        if not node.fenced:
            self._finish(work)
            return
        node.releasing = len(node.fenced)
        if work.kind is IntentKind.RELEASE_INTERFACE:
            work.calls.extend((Call(Operation.DETACH_INTERFACE), Call(Operation.DELETE_INTERFACE)))
        else:
            blocks, singles = self._leaving(node)
            if singles:
                work.calls.append(Call(Operation.UNASSIGN_ADDRESSES))
            if blocks:
                work.calls.append(Call(Operation.UNASSIGN_PREFIXES))
        self.account.acquire(work)

    @staticmethod
    def _leaving(node: Node) -> tuple[list[str], list[str]]:
        fenced = set(node.fenced)
        blocks = [prefix for port in node.ports for prefix in port.prefixes if fenced.issuperset(members(prefix))]
        inside = {address for prefix in blocks for address in members(prefix)}
        return blocks, [address for address in node.fenced if address not in inside]

    # what calls do

    def _apply(self, work: Work, call: Call) -> None:
        node = work.node
        match call.operation:
            case Operation.ASSIGN_ADDRESSES | Operation.ASSIGN_PREFIXES:
                assert isinstance(call.planned, PlannedAssign)
                port = next(each for each in node.ports if each.id == call.planned.interface_id)
                self._fill(work, port)
            case Operation.CREATE_INTERFACE:
                assert isinstance(call.planned, PlannedCreate)
                self._serial += 1
                planned = call.planned
                primary = self._taken[work][0].pop(0)
                work.made = Port(
                    f"eni-{self._serial}", planned.device_index, planned.network_card, planned.subnet_id, primary
                )
            case Operation.ATTACH_INTERFACE:
                assert work.made is not None
                node.ports.append(work.made)
                node.ports.sort(key=lambda port: (port.card, port.index))
                lent = lends_primary(node.spec, work.made.told(node.name, node.zone))
                self._fill(work, work.made, [work.made.primary] if lent else [])
                work.made = None
            case Operation.UNASSIGN_ADDRESSES:
                self._give_back(node, self._leaving(node)[1], [])
            case Operation.UNASSIGN_PREFIXES:
                self._give_back(node, [], self._leaving(node)[0])
            case Operation.DELETE_INTERFACE:
                self._delete(node)
            case _:
                pass

    def _fill(self, work: Work, port: Port, lent: list[str] | None = None) -> None:
        addresses, blocks = self._taken.pop(work)
        port.addresses.update(dict.fromkeys(addresses))
        port.prefixes += blocks
        port.changed()
        inside = [address for block in blocks for address in members(block)]
        work.brought.append((port, [*(lent or []), *addresses, *inside]))

    def _give_back(self, node: Node, addresses: list[str], blocks: list[str]) -> None:
        gone = {*addresses, *(address for block in blocks for address in members(block))}
        for port in node.ports:
            space = self._spaces[port.subnet_id]
            mine = [each for each in addresses if port.addresses.pop(each, 0) is None]
            whole = [each for each in blocks if each in port.prefixes]
            port.prefixes = [each for each in port.prefixes if each not in whole]
            port.changed()
            space.give_back(mine, whole)
        node.fenced = [each for each in node.fenced if each not in gone]
        node.releasing = len(node.fenced)
        node.forget(list(gone))

    def _delete(self, node: Node) -> None:
        leaving = set(node.fenced)
        port = next(each for each in node.ports if leaving.issuperset(each.addresses) and leaving & set(
            node.addresses_of(each)))  # fmt: skip
        addresses, blocks = list(port.addresses), list(port.prefixes)
        self._give_back(node, addresses, blocks)
        self._spaces[port.subnet_id].give_back([port.primary], [])
        node.ports.remove(port)

    def _finish(self, work: Work, plan: Plan | None = None) -> None:
        work.rounds = 0
        self._ended(Ended(work, plan.shortfall if plan is not None else None))
        self.account.let_go()
