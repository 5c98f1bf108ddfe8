"""What the use cases consume. Small on purpose; each has a fake in testing.py and one contract suite.

The central service is asyncio and single-threaded; the worker's side (CloudProvider, Budget, IntentJournal) is
blocking, because cloud SDKs are, and runs in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ipam.model import (
    AddressKey,
    AddressState,
    Claim,
    CloudInterface,
    DeadLetter,
    Goal,
    Instance,
    Intent,
    Inventory,
    Limits,
    NodeSpec,
    Operation,
    OperationClass,
    OperationCount,
    Outcome,
    PublicAddress,
    Report,
    SecurityGroup,
    Step,
    Subnet,
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a cloud can do; plan.py asks before it plans.

    :ivar prefixes: IPv4 blocks of `prefix_length` bits can be delegated to an interface.
    :ivar ipv6: interfaces can have IPv6 addresses; `ipv6_prefixes`: and blocks of them.
    :ivar assign_tokens: `client_token` makes `assign_addresses` and `assign_prefixes` idempotent.
    :ivar changes_interfaces: security groups and tags of a live interface can be set.
    :ivar public_addresses: static public addresses can be listed and associated.
    :ivar ids_ignore_case: ids may be written in any case; the provider tells them in lower case.
    :ivar protects_on_create: an interface can be created so that it goes with its instance; elsewhere that takes a call
        of its own once it is attached.
    """

    creates_interfaces: bool
    max_addresses_per_call: int
    max_addresses_on_create: int
    delete_on_termination: bool
    prefixes: bool = False
    ipv6: bool = False
    asynchronous_attach: bool = False
    prefix_length: int = 28
    ipv6_prefixes: bool = False
    assign_tokens: bool = False
    changes_interfaces: bool = False
    public_addresses: bool = False
    ids_ignore_case: bool = False
    protects_on_create: bool = False

    @property
    def prefix_size(self) -> int:
        """Addresses of a delegated IPv4 prefix."""
        return 1 << (32 - self.prefix_length)


class CloudProvider(Protocol):
    """One account and region of a cloud. Blocking, thread-safe. Raises ipam.errors.CloudError and its children only.

    It makes each call once: retries, budget and order are the caller's. Every method names the calls it makes through
    `observe` of its constructor, for metrics and budget.
    """

    capabilities: Capabilities

    def instance(self, instance_id: str) -> Instance:
        """One instance with its interfaces. Raises Gone."""

    def inventory(self) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        """All instances with interfaces, and interfaces attached to nothing, page by page."""

    def subnets(self) -> Sequence[Subnet]: ...

    def security_groups(self) -> Sequence[SecurityGroup]: ...

    def limits(self, instance_type: str) -> Limits:
        """Raises Rejected for a type that the cloud does not know."""

    def create_interface(
        self,
        *,
        subnet_id: str,
        security_group_ids: Sequence[str],
        secondary_count: int,
        tags: Mapping[str, str],
        description: str,
        client_token: str,
        prefix_count: int = 0,
        ipv6_count: int = 0,
        ipv6_prefix_count: int = 0,
        delete_on_termination: bool = False,
    ) -> CloudInterface:
        """Creates a detached interface with a primary and `secondary_count` more addresses, or with prefixes.

        :param client_token: makes it idempotent, as long as all else is asked for alike.
        :param delete_on_termination: once attached, it goes with its instance; detached it stays, as any other does.

        Raises Rejected for what the cloud has no capability for.
        """

    def attach_interface(
        self, *, interface_id: str, instance_id: str, device_index: int, network_card: int
    ) -> CloudInterface:
        """Returns when attached. Raises Conflict if the index is taken, LimitReached if no slot is left."""

    def protect_interface(self, *, interface_id: str, attachment_id: str) -> None:
        """Has the cloud delete the interface with its instance (DeleteOnTermination)."""

    def assign_addresses(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        """Assigns `count` secondary addresses of the cloud's choice and returns them.

        :param client_token: makes it idempotent where the cloud knows tokens here, and is ignored elsewhere.
        """

    def unassign_addresses(self, *, interface_id: str, addresses: Sequence[str]) -> None: ...

    # What follows raises Rejected on a cloud without the capability.

    def assign_prefixes(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        """Delegates `count` IPv4 prefixes of the cloud's choice and returns them as CIDRs. All or none. Raises
        SubnetExhausted, with `prefixes` set, where the subnet has no whole free block left."""

    def unassign_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None: ...

    def assign_ipv6(self, *, interface_id: str, count: int) -> Sequence[str]: ...

    def unassign_ipv6(self, *, interface_id: str, addresses: Sequence[str]) -> None: ...

    def assign_ipv6_prefixes(self, *, interface_id: str, count: int) -> Sequence[str]: ...

    def unassign_ipv6_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None: ...

    def set_security_groups(self, *, interface_id: str, security_group_ids: Sequence[str]) -> None:
        """Makes these the interface's groups."""

    def set_tags(self, *, interface_id: str, tags: Mapping[str, str]) -> None:
        """Adds or changes these tags; the interface's others stay."""

    def public_addresses(self, *, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        """Static public addresses of the account that have all of `tags`."""

    def associate_public_address(self, *, public_address_id: str, interface_id: str) -> None:
        """Leads it to the interface's primary address. Idempotent. Raises Conflict, and takes nothing away, when it
        leads to another interface."""

    def detach_interface(self, *, attachment_id: str, interface_id: str) -> None: ...

    def delete_interface(self, *, interface_id: str) -> None: ...


BUDGET = "budget"  # the `operation` of a Throttled that a budget raised: nothing was asked of the cloud


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a call stands in the line.

    :ivar urgent: pods wait for what it brings; it goes before all that is not.
    :ivar begun: the node has calls behind it already, and goes before its like that has none.
    """

    urgent: bool = False
    begun: bool = False

    @property
    def rank(self) -> int:
        """0 goes first, 3 last."""
        return 2 * (not self.urgent) + (not self.begun)


class Budget(Protocol):
    """The account's allowance of calls, shared by all workers. Blocking, thread-safe."""

    def acquire(self, operation_class: OperationClass, *, standing: Callable[[], Standing], deadline_s: float) -> float:
        """Waits for one call's turn and returns the seconds waited.

        :param standing: is asked at least every few seconds while the call waits: pods may have come to wait by then.
            What it raises ends the wait.

        Raises Throttled when the turn would not come within `deadline_s`.
        """

    def throttled(self, operation_class: OperationClass) -> None:
        """The cloud throttled: the rate is cut."""

    def succeeded(self, operation_class: OperationClass) -> None:
        """The cloud took a call: the rate may grow."""


class StepObserver(Protocol):
    """Is told of every mutating call, for metrics. Thread-safe."""

    def __call__(self, operation: Operation, subnet_id: str, outcome: str, seconds: float, addresses: int) -> None:
        """:param subnet_id: of the interface concerned; empty when it is not known.
        :param outcome: "ok", or what kind of error it was: "subnet-exhausted", "throttled", "gone" ...
        :param addresses: how many came or went; 0 unless ok.
        """


class IntentJournal(Protocol):
    """The central service, as a worker sees it. Blocking, thread-safe. Raises StaleFence, NotFound, StoreError."""

    def claim(self, intent_id: str, holder: str) -> Claim | None:
        """Takes the intent's lease. None: nothing left to do, or another attempt holds it.

        :param holder: names one attempt. If it asks again, because it did not hear the answer, it gets its claim again.
        """

    def record(
        self, intent_id: str, fence: int, steps: Sequence[Step], instance: Instance | None = None
    ) -> Goal | None:
        """Writes steps (or their results, by number) down before it returns, and renews the lease.

        :param instance: with what the attempt has brought so far, of which the node may be told.

        Returns an allocation's goal as it is by now.
        """

    def confirm_release(self, intent_id: str, fence: int, addresses: Sequence[str]) -> Sequence[str]:
        """The lease check at the moment of release: those of `addresses` that may be unassigned now. They are in state
        releasing when this returns."""

    def complete(self, intent_id: str, fence: int, outcome: Outcome, report: Report) -> None: ...

    def inventory(self, intent_id: str, fence: int, pages: Iterator[Inventory]) -> None: ...


class Queue(Protocol):
    """Where intents are handed to workers. Losing what was enqueued is allowed: the sweeper enqueues it again."""

    async def enqueue(self, intent_id: str, *, delay_s: float = 0.0, priority: int = 0) -> None:
        """Raises Unavailable when the queue cannot be reached. Priority 0 is the most urgent, 9 the least."""


@dataclass(frozen=True, slots=True)
class Block:
    """A subnet that is passed over until `until_at`."""

    subnet_id: str
    until_at: float
    why: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction writes. An instance is written whole, with its interfaces and their addresses.

    `address_states` holds the service's own states (available, marked, ready, releasing); what the node says of use is
    told anew when it connects and is never stored here.
    """

    nodes: Sequence[NodeSpec] = ()
    removed_nodes: Sequence[str] = ()
    instances: Sequence[Instance] = ()
    removed_instances: Sequence[str] = ()
    address_states: Mapping[AddressKey, AddressState] = field(default_factory=dict)
    intents: Sequence[Intent] = ()
    closed_intents: Sequence[str] = ()
    dead_letters: Sequence[DeadLetter] = ()
    removed_dead_letters: Sequence[str] = ()
    limits: Sequence[Limits] = ()
    subnets: Sequence[Subnet] = ()
    security_groups: Sequence[SecurityGroup] = ()
    blocks: Sequence[Block] = ()
    removed_blocks: Sequence[str] = ()
    memos: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    removed_memos: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything the store holds, read once when a replica becomes leader."""

    nodes: Sequence[NodeSpec]
    instances: Sequence[Instance]
    address_states: Mapping[AddressKey, AddressState]
    intents: Sequence[Intent]
    dead_letters: Sequence[DeadLetter]
    limits: Sequence[Limits]
    subnets: Sequence[Subnet]
    security_groups: Sequence[SecurityGroup]
    blocks: Sequence[Block]
    memos: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


class PoolStore(Protocol):
    """The tables of one IPAM service. Every write is one transaction, durable when it returns."""

    async def load(self) -> Stored: ...

    async def apply(self, changes: Changes, *, leader: int) -> None:
        """Writes all of `changes` or nothing. `leader` is the fencing token of the caller's leadership.

        Raises StaleFence if another replica leads by now, AddressConflict if an address would belong to two interfaces
        of its VPC (UNIQUE over VPC and address; `field` names the address), StoreError otherwise.
        """

    async def lead(self, holder: str, ttl_s: float) -> int | None:
        """Takes or renews leadership for `ttl_s` by the store's own clock. Returns the fencing token, which grows with
        each change of leader, or None while another holder leads."""

    async def resign(self, holder: str) -> None: ...


class Clock(Protocol):
    """Time, so that tests own it. `now` is wall-clock seconds, `monotonic` never jumps."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


class OperationObserver(Protocol):
    """Told of each cloud call when it has ended. `outcome` is "ok" or the cloud's error code."""

    def __call__(self, operation: str, outcome: str, seconds: float) -> None: ...


__all__ = [
    "BUDGET",
    "Block",
    "Budget",
    "Capabilities",
    "Changes",
    "Clock",
    "CloudProvider",
    "IntentJournal",
    "OperationCount",
    "OperationObserver",
    "PoolStore",
    "Queue",
    "Standing",
    "Stored",
]
