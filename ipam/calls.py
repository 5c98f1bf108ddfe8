"""A worker's hands: every cloud call goes through here, within the budget, under the lease, and counted."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ipam.errors import CloudError, StoreError, Throttled
from ipam.model import (
    Claim,
    Instance,
    Limits,
    Operation,
    OperationClass,
    OperationCount,
    SecurityGroup,
    Step,
    Subnet,
)
from ipam.ports import Budget, Clock, CloudProvider, IntentJournal, Standing, StepObserver

T = TypeVar("T")
FACTS_TTL_S = 5.0
MARGIN = 2 / 3  # of a lease is left when a call begins: longer than a call may be on its way before it takes effect
# Parts of a lease that a call waits for its turn. What nobody waits for, with nothing half done, gives its worker back.
PATIENCE, GREAT_PATIENCE = 1 / 2, 4.0
ASK_AGAIN_S = 5.0  # what is wanted is asked for anew that often while a call waits ...
OLD_S = 1.0  # ... and after a wait that was longer than this


class Calls:
    """The calls of one attempt at one intent.

    :param started: monotonic time before the claim was asked for; its lease may have begun as early.
    :ivar goal: of an allocation, as the service last said; it may be another after each call.
    :ivar have: addresses that the pool has by now, for the goal.
    :ivar news: the instance, where it is more than the service knows and pods can have what is new; told with the next
        steps, so that they need not wait for the last call.
    """

    def __init__(
        self,
        budget: Budget,
        journal: IntentJournal,
        clock: Clock,
        claim: Claim,
        started: float,
        observe: StepObserver | None = None,
    ) -> None:
        self._observe = observe
        self._budget = budget
        self._journal = journal
        self._clock = clock
        self._claim = claim
        self._lease_until = started + claim.lease_s
        self._asked_at = started
        self._begun = bool(claim.intent.steps)
        self._turn = False
        self.goal = claim.goal
        self.have = 0
        self.news: Instance | None = None
        self._counts: dict[str, list[int]] = {}
        self._steps = {step.number: step for step in claim.intent.steps}
        self._unsaved: set[int] = set()

    # steps

    @property
    def steps(self) -> Sequence[Step]:
        return [self._steps[number] for number in sorted(self._steps)]

    @property
    def next_number(self) -> int:
        return max(self._steps, default=0) + 1

    def write_down(self, steps: Iterable[Step]) -> None:
        """Records steps before they are done, with the results of earlier ones. Renews the lease. Raises StaleFence."""
        for step in steps:
            self._steps[step.number] = step
            self._unsaved.add(step.number)
        asked = self._clock.monotonic()
        unsaved = [self._steps[number] for number in sorted(self._unsaved)]
        goal = self._journal.record(self._claim.intent.id, self._claim.fence, unsaved, self.news)
        self._unsaved.clear()
        self.news = None
        self._asked_at = asked
        self._lease_until = asked + self._claim.lease_s
        self.goal = goal or self.goal

    def settle(self, step: Step) -> None:
        """Keeps a step's result; it is written down with the next steps, or with `save`."""
        self._steps[step.number] = step
        self._unsaved.add(step.number)

    def save(self) -> None:
        if self._unsaved:
            self.write_down(())

    # calls

    @property
    def rushes(self) -> bool:
        """Whether pods wait for addresses that are not there yet."""
        return self.goal is not None and self.have < self.goal.first

    def turn(self) -> None:
        """Waits for the turn of the next mutating call, before it is decided what that call shall be. What was known
        before a long wait is old: `goal` is asked for anew."""
        if not self._turn:
            waited_s = self._acquire(OperationClass.MUTATE)
            self._turn = True
            if self.goal is not None and waited_s >= OLD_S:
                self.write_down(())

    def mutate(self, operation: Operation, call: Callable[[], T], *, subnet_id: str, addresses: int = 0) -> T:
        """:param addresses: how many come or go with it; with `subnet_id` for metrics only."""
        if not self._turn:
            self._acquire(OperationClass.MUTATE)
        self._turn = False
        self._hold_lease()
        began = self._clock.monotonic()
        outcome = "failed"
        try:
            result = self._call(OperationClass.MUTATE, operation, call)
            outcome = "ok"
        except CloudError as error:
            outcome = outcome_of(error)
            raise
        finally:
            if self._observe is not None:
                taken_s = self._clock.monotonic() - began
                self._observe(operation, subnet_id, outcome, taken_s, addresses if outcome == "ok" else 0)
        self._begun = True
        return result

    def read(self, operation: str, call: Callable[[], T]) -> T:
        self._acquire(OperationClass.READ)
        return self._call(OperationClass.READ, operation, call)

    def operations(self) -> tuple[OperationCount, ...]:
        return tuple(OperationCount(operation, *counts) for operation, counts in sorted(self._counts.items()))

    def _acquire(self, operation_class: OperationClass) -> float:
        patience = GREAT_PATIENCE if self._begun or self.rushes else PATIENCE
        try:
            waited_s = self._budget.acquire(
                operation_class, standing=self._standing, deadline_s=patience * self._claim.lease_s
            )
        except Throttled as error:
            error.message = f"no turn within the budget of the account: {error.message}"
            raise
        self._hold_lease()
        return waited_s

    def _standing(self) -> Standing:
        """While a call waits its lease has to last, and pods may come to wait for what it brings."""
        if self.goal is not None and self._clock.monotonic() - self._asked_at >= ASK_AGAIN_S:
            try:
                self.write_down(())
            except StoreError:
                self._asked_at = self._clock.monotonic()  # the service is away; the lease says for how long it may be
        self._hold_lease()
        return Standing(self.rushes, self._begun)

    def _hold_lease(self) -> None:
        """Asks whether the intent is still ours when too little of its lease is left. Raises StaleFence."""
        if self._lease_until - self._clock.monotonic() < self._claim.lease_s * MARGIN:
            self.write_down(())

    def _call(self, operation_class: OperationClass, operation: str, call: Callable[[], T]) -> T:
        counts = self._counts.setdefault(str(operation), [0, 0, 0])
        counts[0] += 1
        try:
            result = call()
        except Throttled:
            counts[1] += 1
            self._budget.throttled(operation_class)
            raise
        except CloudError:
            counts[2] += 1
            raise
        self._budget.succeeded(operation_class)
        return result


def subnet_of(instance: Instance, interface_id: str) -> str:
    """The subnet of one of its interfaces; empty if it has no such interface."""
    return next((each.subnet_id for each in instance.interfaces if each.id == interface_id), "")


def outcome_of(error: CloudError) -> str:
    """The name of an error's class, for labels: "subnet-exhausted"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()


class Facts:
    """Listings that many attempts need at about the same time, read once for all; and limits, read once ever."""

    def __init__(self, provider: CloudProvider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock
        self._lock = threading.Lock()
        self._subnets: tuple[float, Sequence[Subnet]] | None = None
        self._groups: tuple[float, Sequence[SecurityGroup]] | None = None
        self._limits: dict[str, Limits] = {}

    def subnets(self, calls: Calls) -> Sequence[Subnet]:
        with self._lock:
            if self._subnets is None or self._stale(self._subnets[0]):
                listed = calls.read("read-subnets", self._provider.subnets)
                self._subnets = (self._clock.monotonic(), listed)
            return self._subnets[1]

    def security_groups(self, calls: Calls) -> Sequence[SecurityGroup]:
        with self._lock:
            if self._groups is None or self._stale(self._groups[0]):
                listed = calls.read("read-security-groups", self._provider.security_groups)
                self._groups = (self._clock.monotonic(), listed)
            return self._groups[1]

    def limits(self, calls: Calls, instance_type: str) -> Limits:
        """Raises Rejected for a type that the cloud does not know."""
        with self._lock:
            if instance_type not in self._limits:
                self._limits[instance_type] = calls.read("read-limits", lambda: self._provider.limits(instance_type))
            return self._limits[instance_type]

    def forget(self) -> None:
        """What the cloud just said contradicts what was read."""
        with self._lock:
            self._subnets = self._groups = None

    def forget_limits(self, instance_type: str) -> None:
        with self._lock:
            self._limits.pop(instance_type, None)

    def _stale(self, at: float) -> bool:
        return self._clock.monotonic() - at >= FACTS_TTL_S
