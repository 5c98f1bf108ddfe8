"""What the cloud remembers. Records are replaced, never changed: a reader may hold an old one.

Times are seconds since the epoch. `number` is the order of creation, which listings follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.fake_ec2.limits import InstanceType

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Vpc:
    number: int
    id: str
    cidr: str
    ipv6_cidr: str = ""
    is_default: bool = False
    route_table_id: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subnet:
    number: int
    id: str
    vpc_id: str
    cidr: str
    zone: str
    ipv6_cidr: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    number: int
    id: str
    vpc_id: str
    name: str
    description: str
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteTable:
    number: int
    id: str
    vpc_id: str
    cidr: str
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attachment:
    """`status` is attaching, attached or detaching."""

    id: str
    instance_id: str
    device_index: int
    network_card: int
    status: str
    attached_at: float
    delete_on_termination: bool


@dataclass(frozen=True, slots=True)
class Association:
    """An Elastic IP that leads to the primary address of an interface."""

    id: str
    allocation_id: str
    public_address: str


@dataclass(frozen=True, slots=True)
class ElasticIp:
    """`interface_id` is empty while it leads nowhere."""

    number: int
    id: str
    address: str
    association_id: str = ""
    interface_id: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interface:
    """`addresses` has the primary address first; `prefixes` are /28, `ipv6_prefixes` /80 in CIDR form."""

    number: int
    id: str
    mac: str
    vpc_id: str
    subnet_id: str
    zone: str
    addresses: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    ipv6_addresses: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()
    description: str = ""
    source_dest_check: bool = True
    interface_type: str = "interface"
    attachment: Attachment | None = None
    tags: Tags = field(default_factory=dict)
    ipv6_prefixes: tuple[str, ...] = ()
    requester_managed: bool = False
    association: Association | None = None

    @property
    def ipv6_slots(self) -> int:
        return len(self.ipv6_addresses) + len(self.ipv6_prefixes)

    @property
    def status(self) -> str:
        if self.attachment is None:
            return "available"
        return {"attached": "in-use"}.get(self.attachment.status, self.attachment.status)


@dataclass(frozen=True, slots=True)
class Instance:
    """`state` is pending, running, stopped or terminated."""

    number: int
    id: str
    type: InstanceType
    vpc_id: str
    subnet_id: str
    zone: str
    image_id: str
    launched_at: float
    reservation_id: str
    state: str = "pending"
    group_ids: tuple[str, ...] = ()
    private_address: str = ""
    tags: Tags = field(default_factory=dict)


Record = Vpc | Subnet | SecurityGroup | RouteTable | Interface | Instance | ElasticIp
