"""What the cloud remembers. Records are replaced, never changed: a reader may hold an old one.

Ids are ARM's in lower case, as ARM compares them: `/subscriptions/.../networkinterfaces/nic-1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SubnetRecord:
    id: str
    name: str
    cidr: str


@dataclass(frozen=True, slots=True)
class VirtualNetwork:
    number: int
    id: str
    name: str
    cidr: str
    subnets: tuple[SubnetRecord, ...] = ()
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    number: int
    id: str
    name: str
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublicPrefix:
    """A public IP prefix; `length` bits."""

    number: int
    id: str
    name: str
    cidr: str
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublicAddress:
    number: int
    id: str
    name: str
    address: str
    prefix_id: str
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IpConfiguration:
    """`state` is Updating, Succeeded or Failed; the address is there as soon as it is allocated.

    `app_groups`: ids of application security groups, the same for all of an interface.
    """

    name: str
    subnet_id: str
    address: str
    primary: bool = False
    static: bool = False
    state: str = "Succeeded"
    public_address_id: str = ""
    app_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Nic:
    """`machine_id`: the virtual machine that has it; `device`: its place there."""

    number: int
    id: str
    name: str
    mac: str
    configurations: tuple[IpConfiguration, ...]
    etag: str
    state: str = "Succeeded"
    machine_id: str = ""
    device: int = 0
    group_id: str = ""
    tags: Tags = field(default_factory=dict)

    @property
    def primary(self) -> IpConfiguration:
        return next(each for each in self.configurations if each.primary)


@dataclass(frozen=True, slots=True)
class Machine:
    """A virtual machine. `uniform`: of such a scale set; its interfaces are written through its own model.

    `user_data`: told on demand only. `unsaid`: its model does not say which configuration is primary while it has one.
    """

    number: int
    id: str
    name: str
    size: str
    zone: str
    etag: str
    state: str = "Succeeded"
    scale_set_id: str = ""
    uniform: bool = False
    user_data: str = ""
    unsaid: bool = False
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScaleSet:
    number: int
    id: str
    name: str
    uniform: bool
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LongOperation:
    """`status` is InProgress, Succeeded or Failed."""

    number: int
    id: str
    status: str
    code: str = ""
    message: str = ""
