"""Facts of IPAM as frozen dataclasses; no I/O.

Addresses are canonical text ("10.0.0.7"), CIDRs too ("10.0.0.0/24"): they are parsed once, at the edges.
Times are seconds since the epoch (`_at`), durations seconds (`_s`).
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


class _NoTags(Mapping[str, str]):
    """Empty and immutable. Hashable, as Python 3.11 asks of a dataclass default (MappingProxyType is not)."""

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


NO_TAGS: Mapping[str, str] = _NoTags()


class AddressState(enum.StrEnum):
    """Life of an address on a node.

    available -> in-use -> cooling -> available, and for a release: available -> marked -> ready -> releasing -> gone,
    with a way back to available from every state but releasing.
    """

    AVAILABLE = "available"
    IN_USE = "in-use"
    COOLING = "cooling"
    MARKED = "marked"
    READY = "ready"
    RELEASING = "releasing"


class IntentKind(enum.StrEnum):
    ALLOCATE = "allocate"
    RELEASE = "release"
    SYNC_INSTANCE = "sync-instance"
    RESYNC = "resync"
    COLLECT = "collect"
    REPAIR = "repair"  # sets live interfaces right: groups, tags, IPv6, a public address
    RELEASE_INTERFACE = "release-interface"  # `addresses` begins with the interface's id, its own addresses follow


class Operation(enum.StrEnum):
    """Mutating calls that a step can stand for."""

    CREATE_INTERFACE = "create-interface"
    ATTACH_INTERFACE = "attach-interface"
    PROTECT_INTERFACE = "protect-interface"
    ASSIGN_ADDRESSES = "assign-addresses"
    UNASSIGN_ADDRESSES = "unassign-addresses"
    ASSIGN_PREFIXES = "assign-prefixes"
    UNASSIGN_PREFIXES = "unassign-prefixes"
    ASSIGN_IPV6 = "assign-ipv6"
    UNASSIGN_IPV6 = "unassign-ipv6"
    ASSIGN_IPV6_PREFIXES = "assign-ipv6-prefixes"
    UNASSIGN_IPV6_PREFIXES = "unassign-ipv6-prefixes"
    SET_SECURITY_GROUPS = "set-security-groups"
    SET_TAGS = "set-tags"
    ASSOCIATE_PUBLIC_ADDRESS = "associate-public-address"
    DETACH_INTERFACE = "detach-interface"
    DELETE_INTERFACE = "delete-interface"


class OperationClass(enum.StrEnum):
    """What a cloud meters apart. Mutations go first."""

    MUTATE = "mutate"
    READ = "read"


class SubnetPolicy(enum.StrEnum):
    """Which of several subnets with room a new interface gets."""

    MOST_FREE = "most-free"
    ORDERED = "ordered"  # the first of the ids given; without ids, by id
    RANDOM = "random"  # another one for each interface of each node, so that a fleet spreads


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Marks between which a node's pool is kept; see watermarks.py for their meaning. Counts of addresses."""

    pre_allocate: int = 8
    min_allocate: int = 0
    max_allocate: int = 0
    max_above_watermark: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """How a node's marks come about, where they are not plain counts; see targets.py and forecast.py.

    A warm target, at most one, stands in the place of `pre_allocate`; None: it is not set.

    :ivar warm_addresses: free addresses; 0: none is kept, each is fetched for the pod that waits for it.
    :ivar warm_prefixes: free prefixes.
    :ivar warm_interfaces: interfaces' worth of free addresses.
    :ivar warm_up: addresses that the node starts with, once.
    :ivar follow_demand: free addresses follow the node's own starts and stops, between the two bounds.
    """

    warm_addresses: int | None = None
    warm_prefixes: int | None = None
    warm_interfaces: int | None = None
    warm_up: int = 0
    follow_demand: bool = False
    demand_least: int = 1
    demand_most: int = 32


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What is wanted for one pool of a node: the node's own words over the service's defaults.

    :ivar name: the pool's key: the node's name for its default pool, "node/pool" for a named one.
    :ivar prefix_delegation: addresses come as whole prefixes where cloud, type and subnet have them.
    :ivar ipv6: pods get an IPv6 address, too, where the interface's subnet has a range of it.
    :ivar use_primary_address: the primary address of every interface but the first may carry a pod.
    :ivar public_address_tags: the node's first interface gets a public address out of those with these tags.
    """

    name: str
    instance_id: str
    instance_type: str = ""
    watermarks: Watermarks = Watermarks()
    first_interface_index: int = 0
    subnet_ids: tuple[str, ...] = ()
    subnet_tags: Mapping[str, str] = NO_TAGS
    security_group_ids: tuple[str, ...] = ()
    security_group_tags: Mapping[str, str] = NO_TAGS
    exclude_interface_tags: Mapping[str, str] = NO_TAGS
    delete_on_termination: bool = True
    release_excess: bool = True
    labels: Mapping[str, str] = NO_TAGS
    policy: Policy = Policy()
    prefix_delegation: bool = False
    ipv6: bool = False
    use_primary_address: bool = False
    public_address_tags: Mapping[str, str] = NO_TAGS
    subnet_policy: SubnetPolicy = SubnetPolicy.MOST_FREE

    @property
    def node(self) -> str:
        """Name of the node."""
        return self.name.partition("/")[0]

    @property
    def pool(self) -> str:
        """Name of the pool on its node; empty: the default one."""
        return self.name.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance type holds. Addresses per interface include the primary one; a prefix fills one of their slots.

    :ivar addresses_per_instance: of all interfaces together, primary ones included; 0: no such limit.
    :ivar card_interfaces: how many interfaces each network card takes; empty: one card takes them all.
    """

    instance_type: str
    interfaces: int
    ipv4_per_interface: int
    ipv6_per_interface: int = 0
    prefixes: bool = False
    network_cards: int = 1
    addresses_per_instance: int = 0
    card_interfaces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Subnet:
    """
    :ivar gateway: next hop of its interfaces; empty: its first host address.
    :ivar ipv6_cidr: empty: none.
    :ivar free_prefixes: wholly free blocks that could be delegated; None: the cloud does not say.
    """

    id: str
    cidr: str
    zone: str
    vpc_id: str
    free: int
    tags: Mapping[str, str] = NO_TAGS
    vpc_cidrs: tuple[str, ...] = ()
    gateway: str = ""
    ipv6_cidr: str = ""
    free_prefixes: int | None = None


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    id: str
    vpc_id: str
    tags: Mapping[str, str] = NO_TAGS


@dataclass(frozen=True, slots=True)
class CloudInterface:
    """A network interface as the cloud tells it. `addresses` are the secondary ones, without the primary.

    :ivar prefixes: IPv4 blocks delegated to it whole (CIDRs); `addresses` does not have their members.
    :ivar ipv6_prefixes: IPv6 blocks, as CIDRs.
    :ivar public_address_id: of the static public address that leads to it; empty: none.
    """

    id: str
    mac: str
    subnet_id: str
    vpc_id: str
    zone: str
    primary_address: str
    addresses: tuple[str, ...] = ()
    instance_id: str = ""
    attachment_id: str = ""
    device_index: int = 0
    network_card: int = 0
    security_group_ids: tuple[str, ...] = ()
    tags: Mapping[str, str] = NO_TAGS
    delete_on_termination: bool = False
    status: str = "in-use"
    created_at: float = 0.0
    prefixes: tuple[str, ...] = ()
    ipv6_addresses: tuple[str, ...] = ()
    ipv6_prefixes: tuple[str, ...] = ()
    public_address_id: str = ""

    @property
    def all_addresses(self) -> tuple[str, ...]:
        """The secondary addresses and all members of the prefixes."""
        if not self.prefixes:
            return self.addresses
        return (*self.addresses, *(address for prefix in self.prefixes for address in members(prefix)))


AddressKey = tuple[str, str]  # VPC and address: VPCs of one account may have the same ranges


@functools.lru_cache(maxsize=1 << 14)
def members(prefix: str) -> tuple[str, ...]:
    """All addresses of a delegated IPv4 prefix, in their order. Raises ValueError for what is no such CIDR."""
    return tuple(str(address) for address in ipaddress.IPv4Network(prefix))


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """A static public address of the account. `interface_id`: where it leads; empty: it is free."""

    id: str
    address: str
    interface_id: str = ""
    tags: Mapping[str, str] = NO_TAGS


@dataclass(frozen=True, slots=True)
class Instance:
    """A virtual machine with its interfaces, ordered by device index."""

    id: str
    type: str
    zone: str
    vpc_id: str
    subnet_id: str = ""
    tags: Mapping[str, str] = NO_TAGS
    security_group_ids: tuple[str, ...] = ()
    interfaces: tuple[CloudInterface, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """All that a node says it uses. Addresses not named are free. `sequence` grows with every report of a journal."""

    in_use: frozenset[str] = frozenset()
    cooling: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    pending_pods: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class PoolInterface:
    """An interface as its node is told of it: what carries pods, and how to route from it.

    :ivar mac: finds its device; empty: a range of the node's own, which needs none.
    :ivar addresses: members of `prefixes` included.
    :ivar prefixes: IPv4 blocks that are released only whole; the node packs pods into as few as it can.
    :ivar ipv6_addresses: for pods of this interface, beside their IPv4 ones.
    :ivar ipv6_prefixes: blocks of IPv6; a pod's address is derived from its IPv4 one.
    :ivar ipv6_gateway: next hop of IPv6; empty: the interface has none.
    :ivar pool: the node's pool that it belongs to; empty: the default one.
    """

    id: str
    mac: str
    device_index: int
    subnet_id: str
    subnet_cidr: str
    gateway: str
    primary_address: str
    vpc_id: str
    zone: str
    vpc_cidrs: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    addresses: Mapping[str, AddressState]
    instance_tags: Mapping[str, str] = NO_TAGS
    prefixes: tuple[str, ...] = ()
    ipv6_addresses: tuple[str, ...] = ()
    ipv6_prefixes: tuple[str, ...] = ()
    ipv6_gateway: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One mutating call, written down before it is made.

    `arguments` and `result` are JSON-able; `client_token` makes the call idempotent where the cloud knows such tokens.
    """

    number: int
    operation: Operation
    target: str
    arguments: Mapping[str, object]
    client_token: str = ""
    result: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """Work that is owed to the cloud. It stays open until an outcome closes it."""

    id: str
    kind: IntentKind
    node: str
    want: int = 0
    addresses: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    attempts: int = 0
    created_at: float = 0.0
    not_before_at: float = 0.0
    last_error: str = ""
    holder: str = ""
    fence: int = 0
    lease_until_at: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An intent that gave up, kept for people to look at and replay."""

    id: str
    intent: Intent
    why: str
    died_at: float
    replays: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """Finished; nothing more to do."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, `after_s` seconds from now at the earliest.

    :ivar underway: the cloud is at work on it; that is no failed attempt, and no pause grows by it.
    :ivar no_turn: the account's budget had no turn for it in time: no failed attempt either, and pods that come to wait
        need not wait for the end of the pause.
    """

    after_s: float
    why: str
    underway: bool = False
    no_turn: bool = False

    @property
    def failed(self) -> bool:
        return not (self.underway or self.no_turn)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Trying again will not help; a dead letter tells people why."""

    why: str


Outcome = Done | Retry | GiveUp


@dataclass(frozen=True, slots=True)
class OperationCount:
    """Calls of one cloud operation since the last report."""

    operation: str
    calls: int = 0
    throttled: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Goal:
    """What an allocation is to bring a pool to, as counts of addresses that are attached.

    :ivar addresses: with those that are wanted beyond what is used.
    :ivar first: so many serve the pods that wait; no more than are attached already when none does.
    """

    addresses: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """All that a worker needs to perform an intent, as known when it was claimed. `goal` is an allocation's."""

    intent: Intent
    fence: int
    lease_s: float
    node: NodeSpec | None = None
    instance: Instance | None = None
    subnets: tuple[Subnet, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    limits: Limits | None = None
    blocked_subnet_ids: frozenset[str] = frozenset()
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker learnt while performing an intent. `denied`: the cloud refused credentials or permissions."""

    instance: Instance | None = None
    instance_gone: bool = False
    subnets: tuple[Subnet, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    limits: Limits | None = None
    blocked_subnets: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[OperationCount, ...] = ()
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """One page of a full listing. `started_at`: what changed later than that is newer than this page."""

    instances: tuple[Instance, ...]
    detached: tuple[CloudInterface, ...]
    subnets: tuple[Subnet, ...]
    security_groups: tuple[SecurityGroup, ...]
    started_at: float
    last: bool


class Level(enum.StrEnum):
    OK = "ok"
    WAITING = "waiting"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an explanation. `subject`: node, watermark, limits, intent, budget, subnet, security-group, cloud,
    release or lease."""

    level: Level
    subject: str
    message: str
    remedy: str = ""
