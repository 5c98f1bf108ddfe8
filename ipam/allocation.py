"""One attempt at bringing an instance more addresses.

The goal is a number of addresses on the instance, not a number of calls: whatever an earlier attempt achieved before
its worker died counts, so trying again never brings twice as many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ipam.calls import Calls, Facts, subnet_of
from ipam.drift import abilities, ipv6_drifts
from ipam.errors import (
    CloudError,
    Conflict,
    Gone,
    InProgress,
    LimitReached,
    Rejected,
    SubnetExhausted,
    Throttled,
    Unavailable,
)
from ipam.model import (
    Claim,
    CloudInterface,
    Done,
    GiveUp,
    Goal,
    Instance,
    Limits,
    NodeSpec,
    Operation,
    Outcome,
    Retry,
    SecurityGroup,
    Step,
    Subnet,
)
from ipam.plan import (
    Plan,
    PlannedAssign,
    PlannedCall,
    PlannedCreate,
    Shortfall,
    attached,
    call_limits,
    free_slots,
    plan_allocation,
    prefix_block,
    serving,
)
from ipam.ports import CloudProvider
from ipam.repair import Repair
from ipam.tags import INTENT_TAG, STEP_TAG

ROUNDS = 8
SUBNET_RETRY_S = 30.0


@dataclass(slots=True)
class Found:
    """What an attempt learns, for its report. `instance` stays None while nothing new is known of it."""

    instance: Instance | None = None
    instance_gone: bool = False
    subnets: tuple[Subnet, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    limits: Limits | None = None
    blocked: dict[str, str] = field(default_factory=dict)


class Allocation:
    """:param tags: put on every interface created."""

    def __init__(
        self,
        provider: CloudProvider,
        calls: Calls,
        facts: Facts,
        claim: Claim,
        spec: NodeSpec,
        found: Found,
        tags: Mapping[str, str],
    ) -> None:
        self._provider = provider
        self._calls = calls
        self._facts = facts
        self._claim = claim
        self._spec = spec
        self._found = found
        self._tags = tags
        can = provider.capabilities
        self._protects = spec.delete_on_termination and can.delete_on_termination
        self._creates_protected = self._protects and can.protects_on_create
        calls.goal = calls.goal or Goal(claim.intent.want + attached(spec, claim.instance))
        self._subnets = {subnet.id: subnet for subnet in claim.subnets}
        self._groups = list(claim.security_groups)
        self._limits = claim.limits
        self._refreshed = False
        self._ipv6_refused = False
        self._rushed = False
        self._instance: Instance | None = claim.instance
        calls.have = attached(spec, claim.instance)

    def run(self) -> Outcome:
        if self._instance is None or self._claim.intent.steps:
            self._read()
        self._know()
        for step in self._claim.intent.steps:
            if step.operation is Operation.CREATE_INTERFACE:
                self._adopt(step)
        for _ in range(ROUNDS):
            # Before pods can have them, and after single addresses came: each has one of IPv6.
            self._bring_ipv6()
            self._calls.news = self._found.instance
            if self._ended():
                return Done()
            plan, goal = self._planned(), self._calls.goal
            if plan.calls:
                self._calls.turn()
            if self._calls.goal != goal:
                if self._ended():
                    return Done()
                plan = self._planned()
            if not plan.calls:
                return _outcome_of(plan)
            self._carry_out(plan)
        return Retry(1.0, "the instance or its subnets change faster than they can be planned for")

    # knowing

    @property
    def _now(self) -> Instance:
        assert self._instance is not None, "run() reads it first"
        return self._instance

    def _missing(self) -> int:
        assert self._calls.goal is not None, "set at the beginning"
        return self._calls.goal.addresses - self._calls.have

    def _ended(self) -> bool:
        """Nothing is missing, or pods waited and have theirs: what else is wanted is another intent's, since the worker
        that would wait for its turn may be wanted by pods of other nodes."""
        self._rushed |= self._calls.rushes
        return self._missing() <= 0 or (self._rushed and not self._calls.rushes)

    def _set(self, instance: Instance) -> None:
        self._instance = self._found.instance = instance
        self._calls.have = attached(self._spec, instance)

    def _read(self) -> None:
        instance_id = self._spec.instance_id
        self._set(self._calls.read("read-instance", lambda: self._provider.instance(instance_id)))

    def _know(self) -> None:
        """Reads what the service did not know yet."""
        if self._limits is None or self._limits.instance_type != self._now.type:
            self._limits = self._found.limits = self._limits_of(self._now.type)
        if any(each.subnet_id not in self._subnets for each in self._now.interfaces):
            self._refresh_subnets()
        if not self._groups and (self._spec.security_group_ids or self._spec.security_group_tags):
            self._refresh_groups()

    def _limits_of(self, instance_type: str) -> Limits:
        try:
            return self._facts.limits(self._calls, instance_type)
        except Rejected as error:
            raise Rejected(
                f"the cloud knows no limits of instance type {instance_type!r}: {error.message}", code=error.code,
                operation=error.operation, remedy="add the type to the file that limits_file names",
            ) from error  # fmt: skip

    def _refresh_subnets(self) -> None:
        self._found.subnets = tuple(self._facts.subnets(self._calls))
        self._subnets = {subnet.id: subnet for subnet in self._found.subnets}

    def _refresh(self) -> None:
        """What is known of subnets and groups does not allow a plan; perhaps it is old."""
        self._refreshed = True
        self._refresh_subnets()
        self._refresh_groups()

    def _refresh_groups(self) -> None:
        self._found.security_groups = tuple(self._facts.security_groups(self._calls))
        self._groups = list(self._found.security_groups)

    def _planned(self) -> Plan:
        """The calls to make now: all, or those that serve the pods that wait."""
        plan = self._plan()
        if plan.shortfall in (Shortfall.NO_SUBNET, Shortfall.NO_SECURITY_GROUP) and not self._refreshed:
            self._refresh()
            plan = self._plan()
        if not self._calls.rushes or self._calls.goal is None:
            return plan
        return replace(plan, calls=serving(plan.calls, self._calls.goal.first - self._calls.have))

    def _plan(self) -> Plan:
        return plan_allocation(
            self._spec, self._now, want=self._missing(), limits=self._limits,
            calls=call_limits(self._provider.capabilities), subnets=self._subnets.values(),
            security_groups=self._groups, blocked=self._claim.blocked_subnet_ids | self._found.blocked.keys(),
        )  # fmt: skip

    # acting

    def _bring_ipv6(self) -> None:
        """To the interfaces that lack it. What is refused is tried again by a repair; pods get IPv4 meanwhile."""
        if self._ipv6_refused:
            return
        found = ipv6_drifts(
            self._spec, self._now, can=abilities(self._provider.capabilities), subnets=self._subnets.values(),
            limits=self._limits,
        )  # fmt: skip
        if found:
            repair = Repair(self._provider, self._calls)
            self._set(repair.run(self._now, found))
            self._ipv6_refused = bool(repair.refused)

    def _carry_out(self, plan: Plan) -> None:
        """Writes the whole plan down, then does it; leaves early when the cloud's answer calls for another plan."""
        written = self._steps(plan)
        self._calls.write_down(step for steps in written for step in steps)
        for position, (call, steps) in enumerate(zip(plan.calls, written, strict=True)):
            try:
                if isinstance(call, PlannedAssign):
                    self._assign(call, steps[0])
                else:
                    self._add_interface(steps[0])
            except SubnetExhausted as error:
                asked = call.brings + isinstance(call, PlannedCreate)
                self._exhausted(error.subnet_id or call.subnet_id, asked, error)
            except LimitReached as error:
                self._reconsider(error)
            except Gone as error:
                self._look_again(error)
            else:
                if not self._spec.ipv6:
                    self._calls.news = self._now
                continue
            self._void(written[position:])
            return

    def _void(self, written: list[list[Step]]) -> None:
        """Another plan takes the place of these steps."""
        settled = {step.number for step in self._calls.steps if step.result is not None}
        for steps in written:
            for step in steps:
                if step.number not in settled:
                    self._calls.settle(replace(step, result={"void": True}))

    def _steps(self, plan: Plan) -> list[list[Step]]:
        number = self._calls.next_number
        written = []
        for call in plan.calls:
            steps = self._steps_of(call, number)
            number += len(steps)
            written.append(steps)
        return written

    def _steps_of(self, call: PlannedCall, number: int) -> list[Step]:
        if isinstance(call, PlannedAssign):
            operation = Operation.ASSIGN_PREFIXES if call.prefix_size else Operation.ASSIGN_ADDRESSES
            return [Step(number, operation, call.interface_id, {"count": call.count}, self._token(number))]
        create = Step(
            number, Operation.CREATE_INTERFACE, call.subnet_id,
            {
                "security_group_ids": list(call.security_group_ids), "secondary_count": call.secondary_count,
                "device_index": call.device_index, "network_card": call.network_card,
                "prefix_count": call.prefix_count, "ipv6_count": call.ipv6_count,
                "ipv6_prefix_count": call.ipv6_prefix_count, "delete_on_termination": self._creates_protected,
                "tags": {**self._tags, INTENT_TAG: self._claim.intent.id, STEP_TAG: str(number)},
            },
            client_token=self._token(number),
        )  # fmt: skip
        steps = [create, Step(number + 1, Operation.ATTACH_INTERFACE, self._spec.instance_id, {"create": number})]
        if self._protects and not self._creates_protected:
            steps.append(Step(number + 2, Operation.PROTECT_INTERFACE, self._spec.instance_id, {"create": number}))
        return steps

    def _token(self, number: int) -> str:
        return f"{self._claim.intent.id}-{number}"

    def _assign(self, call: PlannedAssign, step: Step) -> None:
        assign = self._provider.assign_prefixes if call.prefix_size else self._provider.assign_addresses
        new = self._calls.mutate(
            step.operation,
            lambda: assign(interface_id=call.interface_id, count=call.count, client_token=step.client_token),
            subnet_id=subnet_of(self._now, call.interface_id),
            addresses=call.brings,
        )
        self._calls.settle(replace(step, result={"prefixes" if call.prefix_size else "addresses": list(new)}))
        interfaces = []
        for each in self._now.interfaces:
            if each.id == call.interface_id and call.prefix_size:
                interfaces.append(replace(each, prefixes=(*each.prefixes, *new)))
            elif each.id == call.interface_id:
                interfaces.append(replace(each, addresses=(*each.addresses, *new)))
            else:
                interfaces.append(each)
        self._set(replace(self._now, interfaces=tuple(interfaces)))

    def _add_interface(self, step: Step) -> None:
        created = self._create(step)
        self._calls.settle(replace(step, result={"interface_id": created.id}))
        try:
            self._attach(step, created)
        except (InProgress, Throttled, Unavailable):
            raise  # it may be attached, or can be later: the next attempt sees
        except CloudError:
            self._discard(step, created.id)
            raise
        self._protect(step, created.id)

    def _create(self, step: Step) -> CloudInterface:
        arguments = step.arguments
        groups, tags = arguments["security_group_ids"], arguments["tags"]
        count = _number(arguments, "secondary_count")
        # Only what is asked for is named: a cloud without it has no such argument.
        more = {name: _number(arguments, name) for name in ("prefix_count", "ipv6_count", "ipv6_prefix_count")}
        more = {name: number for name, number in more.items() if number}
        assert isinstance(groups, list)
        assert isinstance(tags, Mapping)
        return self._calls.mutate(
            Operation.CREATE_INTERFACE,
            lambda: self._provider.create_interface(
                subnet_id=step.target, security_group_ids=groups, secondary_count=count, tags=tags,
                description=f"pods of {self._spec.name}", client_token=step.client_token,
                delete_on_termination=bool(arguments.get("delete_on_termination")), **more,
            ),
            subnet_id=step.target,
            addresses=count + more.get("prefix_count", 0) * self._provider.capabilities.prefix_size,
        )  # fmt: skip

    def _attach(self, step: Step, created: CloudInterface) -> None:
        """Attaches at the planned place, or at the next one that is free. Raises LimitReached when none is."""
        place = _number(step.arguments, "network_card"), _number(step.arguments, "device_index", -1)
        again = False
        for _ in range(ROUNDS):
            assert self._limits is not None
            free = free_slots(self._spec, self._now, self._limits)
            if not free:
                raise LimitReached("no device index is free", operation=Operation.ATTACH_INTERFACE)
            place = place if place in free else free[0]
            try:
                interface = self._calls.mutate(
                    Operation.ATTACH_INTERFACE, lambda at=place: self._provider.attach_interface(  # type: ignore[misc]
                        interface_id=created.id, instance_id=self._spec.instance_id, device_index=at[1],
                        network_card=at[0],
                    ),
                    subnet_id=created.subnet_id,
                )  # fmt: skip
            except Conflict as error:
                self._read()
                if any(each.id == created.id for each in self._now.interfaces):
                    return
                if again and place in free_slots(self._spec, self._now, self._limits):
                    raise Unavailable(  # it is not the place that is in the way: an instance that stops, say
                        f"{self._spec.instance_id} takes no interface now: {error.message}", code=error.code,
                        operation=Operation.ATTACH_INTERFACE,
                    ) from error  # fmt: skip
                again = True
                continue
            interface = replace(
                interface, addresses=interface.addresses or created.addresses, tags=interface.tags or created.tags,
                prefixes=interface.prefixes or created.prefixes,
                ipv6_addresses=interface.ipv6_addresses or created.ipv6_addresses,
                ipv6_prefixes=interface.ipv6_prefixes or created.ipv6_prefixes,
            )  # fmt: skip
            interfaces = sorted((*self._now.interfaces, interface), key=_place)
            self._set(replace(self._now, interfaces=tuple(interfaces)))
            return
        raise LimitReached("every device index is taken by others", operation=Operation.ATTACH_INTERFACE)

    def _protect(self, create: Step, interface_id: str) -> None:
        """Has the interface go with its instance, unless the cloud says that it does."""
        interface = next((each for each in self._now.interfaces if each.id == interface_id), None)
        if interface is None or interface.delete_on_termination or not self._protects:
            return
        if create.arguments.get("delete_on_termination"):  # in vain, so that no step of this was planned
            number = self._calls.next_number
            instance_id, arguments = self._spec.instance_id, {"create": create.number}
            self._calls.write_down([Step(number, Operation.PROTECT_INTERFACE, instance_id, arguments)])
        self._calls.mutate(
            Operation.PROTECT_INTERFACE,
            lambda: self._provider.protect_interface(interface_id=interface_id, attachment_id=interface.attachment_id),
            subnet_id=interface.subnet_id,
        )
        interfaces = tuple(
            replace(each, delete_on_termination=True) if each.id == interface_id else each
            for each in self._now.interfaces
        )
        self._set(replace(self._now, interfaces=interfaces))

    def _discard(self, step: Step, interface_id: str) -> None:
        """Deletes an interface that could not be attached. Should that fail, it is collected as leaked later."""
        number = self._calls.next_number
        delete = Step(number, Operation.DELETE_INTERFACE, interface_id, {"create": step.number})
        self._calls.write_down([delete])
        try:
            self._calls.mutate(
                Operation.DELETE_INTERFACE,
                lambda: self._provider.delete_interface(interface_id=interface_id),
                subnet_id=step.target,
            )
        except CloudError as error:
            self._calls.settle(replace(delete, result={"error": error.code or str(error)}))
        else:
            self._calls.settle(replace(delete, result={}))
        self._calls.settle(replace(step, result={"discarded": interface_id}))

    def _adopt(self, step: Step) -> None:
        """Ends what an earlier attempt began: its interface may be missing, detached, or attached but unprotected."""
        result = step.result or {}
        if "void" in result or "discarded" in result:
            return
        interface_id = result.get("interface_id")
        for each in self._now.interfaces:
            made_by_us = (each.tags.get(INTENT_TAG), each.tags.get(STEP_TAG)) == (
                self._claim.intent.id, str(step.number),
            )  # fmt: skip
            if each.id == interface_id or made_by_us:
                if each.status == "attaching":
                    raise InProgress(f"{each.id} is being attached", operation=Operation.ATTACH_INTERFACE)
                self._protect(step, each.id)
                return
        try:
            if self._missing() > 0:
                self._add_interface(step)
            elif interface_id:
                self._discard(step, str(interface_id))
        except SubnetExhausted as error:
            self._block(error.subnet_id or step.target, error)
            self._calls.settle(replace(step, result={"void": True}))
        except LimitReached as error:
            self._reconsider(error)
        except (Gone, Conflict, Rejected):
            self._calls.settle(replace(step, result={"void": True}))
            self._read()

    # learning from refusals

    def _exhausted(self, subnet_id: str, asked: int, error: SubnetExhausted) -> None:
        """The subnet holds less than was thought. What it still has can be planned for; else it is passed over.

        One without a whole block is passed over for prefixes: a sibling has some, or single addresses have to do."""
        if error.prefixes:
            self._block(subnet_id, error)
            return
        self._facts.forget()
        self._refresh_subnets()
        subnet = self._subnets.get(subnet_id)
        if subnet is None or not 0 < subnet.free < asked:
            self._block(subnet_id, error)

    def _block(self, subnet_id: str, error: SubnetExhausted) -> None:
        self._found.blocked[prefix_block(subnet_id) if error.prefixes else subnet_id] = error.message

    def _look_again(self, error: Gone) -> None:
        """An interface, a subnet or a group that was planned with is no more. Raises Gone if it is none of these."""
        before = self._instance, self._subnets.keys(), self._groups
        self._facts.forget()
        self._read()
        self._refresh()
        if (self._instance, self._subnets.keys(), self._groups) == before:
            raise error

    def _reconsider(self, error: CloudError) -> None:
        """The instance holds more, or may hold less, than was thought."""
        before, limits = self._instance, self._limits
        self._read()
        self._facts.forget_limits(self._now.type)
        try:
            self._limits = self._found.limits = self._limits_of(self._now.type)
        except Rejected:
            raise error from None  # the limits come from an override
        if (self._instance, self._limits) == (before, limits):
            raise error


def _number(arguments: Mapping[str, object], name: str, default: int = 0) -> int:
    number = arguments.get(name)
    return int(number) if isinstance(number, (int, float)) else default


def _place(interface: CloudInterface) -> tuple[int, int]:
    return interface.network_card, interface.device_index


def _outcome_of(plan: Plan) -> Outcome:
    if plan.shortfall is Shortfall.AT_CAPACITY:
        return Done()
    if plan.shortfall is Shortfall.NO_SUBNET:
        return Retry(SUBNET_RETRY_S, plan.why)
    return GiveUp(f"{plan.why}; {plan.remedy}" if plan.remedy else plan.why)
