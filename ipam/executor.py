"""Executor: performs intents at the cloud. The worker's whole work, whatever carries it there.

It claims an intent, writes each step down before the call, and completes with an outcome and what it learnt. It may be
killed anywhere: the next attempt reads the instance again and goes on from what is.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ipam.allocation import Allocation, Found
from ipam.calls import Calls, Facts, subnet_of
from ipam.dismantle import dismantle
from ipam.drift import abilities, drifts, own_tags
from ipam.errors import (
    CloudError,
    Conflict,
    Denied,
    Gone,
    InProgress,
    LimitReached,
    NotFound,
    Rejected,
    StaleFence,
    SubnetExhausted,
    Throttled,
)
from ipam.model import (
    NO_TAGS,
    Claim,
    CloudInterface,
    Done,
    GiveUp,
    Instance,
    IntentKind,
    Inventory,
    NodeSpec,
    Operation,
    Outcome,
    Report,
    Retry,
    Step,
    members,
)
from ipam.ports import BUDGET, Budget, Clock, CloudProvider, IntentJournal, StepObserver
from ipam.repair import Repair
from ipam.tags import CLUSTER_TAG

LIMIT_RETRY_S = 60.0
UNDERWAY_S = 2.0
# The service merges a page without a pause, and nodes wait meanwhile: a cloud's own pages may hold a thousand.
INSTANCES_A_PAGE = 10


class Executor:
    """Blocking and thread-safe: one for all threads of a worker.

    :param cluster: the service's cluster; leaked interfaces are found by it.
    :param interface_tags: more tags for every interface created.
    :param observe: is told of every mutating call, for metrics.
    """

    def __init__(
        self,
        provider: CloudProvider,
        budget: Budget,
        journal: IntentJournal,
        clock: Clock,
        *,
        cluster: str = "plimsoll",
        interface_tags: Mapping[str, str] = NO_TAGS,
        observe: StepObserver | None = None,
    ) -> None:
        self._observe = observe
        self._provider = provider
        self._budget = budget
        self._journal = journal
        self._clock = clock
        self._tags = {**interface_tags, CLUSTER_TAG: cluster}
        self._facts = Facts(provider, clock)

    def perform(self, intent_id: str, holder: str) -> Outcome:
        """One attempt. Raises StoreError and the like when the service cannot be reached: it will be repeated.

        :param holder: the worker's name. It may be handed an intent twice at a time, so each attempt adds its own.
        """
        started = self._clock.monotonic()
        claim = self._journal.claim(intent_id, f"{holder}/{secrets.token_hex(4)}")
        if claim is None:
            return Done()
        calls = Calls(self._budget, self._journal, self._clock, claim, started, self._observe)
        found = Found()
        denied = False
        try:
            try:
                outcome = self._attempt(claim, calls, found)
            except CloudError as error:
                outcome = self._refused(error, claim, found)
                denied = isinstance(error, Denied)
            if isinstance(outcome, Retry):
                calls.save()
            self._journal.complete(
                intent_id, claim.fence, outcome,
                Report(
                    instance=found.instance, instance_gone=found.instance_gone, subnets=found.subnets,
                    security_groups=found.security_groups, limits=found.limits, blocked_subnets=found.blocked,
                    operations=calls.operations(), denied=denied,
                ),
            )  # fmt: skip
        except (StaleFence, NotFound) as error:
            return Retry(0.0, f"another worker has taken over: {error}")
        return outcome

    def _attempt(self, claim: Claim, calls: Calls, found: Found) -> Outcome:
        kind = claim.intent.kind
        if kind is IntentKind.RESYNC:
            return self._resync(claim, calls)
        if kind is IntentKind.COLLECT:
            return self._collect(claim, calls)
        if claim.node is None:
            return GiveUp(f"the claim of {claim.intent.id} names no node")
        if kind is IntentKind.ALLOCATE:
            tags = own_tags(claim.node, self._tags[CLUSTER_TAG], self._tags)
            return Allocation(self._provider, calls, self._facts, claim, claim.node, found, tags).run()
        if kind is IntentKind.RELEASE:
            return self._release(claim, calls, found)
        if kind is IntentKind.RELEASE_INTERFACE:
            instance = self._read(claim, calls)
            return dismantle(self._provider, self._journal, calls, claim, found, instance)
        found.instance = self._read(claim, calls)
        known = {subnet.id for subnet in claim.subnets}
        if any(each.subnet_id not in known for each in found.instance.interfaces):
            found.subnets = tuple(self._facts.subnets(calls))
        if kind is IntentKind.REPAIR:
            return self._repair(claim, claim.node, calls, found, found.instance)
        return Done()

    def _repair(self, claim: Claim, spec: NodeSpec, calls: Calls, found: Found, instance: Instance) -> Outcome:
        """Sets right what differs in the instance as it is now; an earlier attempt may have done part of it."""
        groups = claim.security_groups or self._facts.security_groups(calls)
        wrong = drifts(
            spec, instance, can=abilities(self._provider.capabilities), cluster=self._tags[CLUSTER_TAG],
            tags=self._tags, groups=groups, subnets=found.subnets or claim.subnets, limits=claim.limits,
        )  # fmt: skip
        repair = Repair(self._provider, calls)
        found.instance = repair.run(instance, wrong)
        return GiveUp("; ".join(repair.refused)) if repair.refused else Done()

    def _refused(self, error: CloudError, claim: Claim, found: Found) -> Outcome:
        where = f"{error.operation or 'a call'} ({error.code})" if error.code else error.operation or "a call"
        said = f"{where}: {error.message}"
        if isinstance(error, Throttled):
            no_turn = error.operation == BUDGET
            why = error.message if no_turn else f"throttled at {said}"
            return Retry(error.retry_after_s or 1.0, why, no_turn=no_turn)
        if isinstance(error, InProgress):
            return Retry(error.retry_after_s or UNDERWAY_S, f"under way at the cloud: {said}", underway=True)
        if isinstance(error, Gone) and claim.node is not None:
            self._facts.forget()
            try:
                found.instance = self._provider.instance(claim.node.instance_id)
            except Gone:
                found.instance, found.instance_gone = None, True
                return Done()
            except CloudError:
                found.instance = None
            return Retry(1.0, said)
        if isinstance(error, (Denied, Rejected)):
            return GiveUp(f"{said}; {error.remedy}" if error.remedy else said)
        if isinstance(error, LimitReached):
            return Retry(LIMIT_RETRY_S, said)
        return Retry(error.retry_after_s or 1.0, said)

    def _read(self, claim: Claim, calls: Calls) -> Instance:
        assert claim.node is not None
        instance_id = claim.node.instance_id
        return calls.read("read-instance", lambda: self._provider.instance(instance_id))

    # release

    def _release(self, claim: Claim, calls: Calls, found: Found) -> Outcome:
        instance = claim.instance
        if instance is None or claim.intent.steps:
            instance = found.instance = self._read(claim, calls)
        allowed = set(self._journal.confirm_release(claim.intent.id, claim.fence, claim.intent.addresses))
        chunk = self._provider.capabilities.max_addresses_per_call
        steps: list[Step] = []
        for interface in instance.interfaces:
            leaving = [address for address in interface.addresses if address in allowed]
            for start in range(0, len(leaving), chunk):
                number = calls.next_number + len(steps)
                part = leaving[start : start + chunk]
                steps.append(Step(number, Operation.UNASSIGN_ADDRESSES, interface.id, {"addresses": part}))
            whole = [prefix for prefix in interface.prefixes if allowed.issuperset(members(prefix))]
            for start in range(0, len(whole), chunk):
                number = calls.next_number + len(steps)
                blocks = whole[start : start + chunk]
                steps.append(Step(number, Operation.UNASSIGN_PREFIXES, interface.id, {"prefixes": blocks}))
        if steps:
            calls.write_down(steps)
        for step in steps:
            found.instance = instance = self._unassign(claim, calls, instance, step)
        # What is gone already still has to be reported as gone.
        found.instance = instance
        return Done()

    def _unassign(self, claim: Claim, calls: Calls, instance: Instance, step: Step) -> Instance:
        what = "prefixes" if step.operation is Operation.UNASSIGN_PREFIXES else "addresses"
        leaving = step.arguments[what]
        assert isinstance(leaving, list)
        provider, target = self._provider, step.target
        call = (
            partial(provider.unassign_prefixes, interface_id=target, prefixes=leaving)
            if what == "prefixes"
            else partial(provider.unassign_addresses, interface_id=target, addresses=leaving)
        )
        size = provider.capabilities.prefix_size if what == "prefixes" else 1
        try:
            calls.mutate(step.operation, call, subnet_id=subnet_of(instance, target), addresses=len(leaving) * size)
        except (Gone, Rejected, Conflict):
            instance = self._read(claim, calls)
            left = {one for each in instance.interfaces for one in (*each.addresses, *each.prefixes)}
            if left & set(leaving):
                raise
        calls.settle(replace(step, result={}))
        gone = frozenset(leaving)
        interfaces = tuple(
            replace(
                each,
                addresses=tuple(one for one in each.addresses if one not in gone),
                prefixes=tuple(one for one in each.prefixes if one not in gone),
            )
            if each.id == target
            else each
            for each in instance.interfaces
        )
        return replace(instance, interfaces=interfaces)

    # the whole account

    def _resync(self, claim: Claim, calls: Calls) -> Outcome:
        failed: list[Exception] = []
        try:
            self._journal.inventory(claim.intent.id, claim.fence, self._pages(calls, failed))
        except CloudError:
            raise
        except Exception:
            # A transport may hide what was raised while it asked for the next page.
            if failed:
                raise failed[0] from None
            raise
        if failed:
            raise failed[0]
        return Done()

    def _pages(self, calls: Calls, failed: list[Exception]) -> Iterator[Inventory]:
        """One page is held back, so that the last one can say so; a listing that breaks off never says it."""
        started_at = self._clock.now()
        try:
            subnets = tuple(calls.read("read-subnets", self._provider.subnets))
            groups = tuple(calls.read("read-security-groups", self._provider.security_groups))
            pages = self._provider.inventory()
            held: tuple[Sequence[Instance], Sequence[CloudInterface]] = ((), ())
            while (page := calls.read("read-inventory", lambda: next(pages, None))) is not None:
                for part in small_pages(*page):
                    yield Inventory(tuple(held[0]), tuple(held[1]), subnets, groups, started_at, last=False)
                    held, subnets, groups = part, (), ()
        except Exception as error:
            failed.append(error)
            raise
        yield Inventory(tuple(held[0]), tuple(held[1]), subnets, groups, started_at, last=True)

    def _collect(self, claim: Claim, calls: Calls) -> Outcome:
        number = calls.next_number
        steps = [
            Step(number + offset, Operation.DELETE_INTERFACE, interface_id, {})
            for offset, interface_id in enumerate(claim.intent.addresses)
        ]
        calls.write_down(steps)
        for step in steps:
            try:
                calls.mutate(
                    Operation.DELETE_INTERFACE,
                    lambda target=step.target: self._provider.delete_interface(interface_id=target),  # type: ignore[misc]
                    subnet_id="",
                )
            except (Gone, Conflict, Rejected, SubnetExhausted):
                continue  # deleted by somebody else, or attached meanwhile: not a leak
        return Done()


def small_pages(
    instances: Sequence[Instance], detached: Sequence[CloudInterface]
) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
    """The same in small pages; a cloud's page that holds nothing stays one."""
    for start in range(0, max(len(instances), len(detached), 1), INSTANCES_A_PAGE):
        end = start + INSTANCES_A_PAGE
        yield instances[start:end], detached[start:end]
