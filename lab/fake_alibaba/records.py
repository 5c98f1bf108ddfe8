"""What the cloud remembers. Records are replaced, never changed: a reader may hold an old one.

Times are seconds since the epoch. `number` is the order of creation, which listings follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.fake_alibaba.limits import InstanceType

Tags = Mapping[str, str]

CREATING, AVAILABLE, ATTACHING, IN_USE, DETACHING = "Creating", "Available", "Attaching", "InUse", "Detaching"
PRIMARY, SECONDARY = "Primary", "Secondary"


@dataclass(frozen=True, slots=True)
class Vpc:
    number: int
    id: str
    cidr: str
    name: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VSwitch:
    number: int
    id: str
    vpc_id: str
    cidr: str
    zone: str
    name: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    number: int
    id: str
    vpc_id: str
    name: str
    description: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Interface:
    """`addresses` has the primary address first; `prefixes` are /28 in CIDR form.

    :ivar kind: Primary, Secondary, Trunk or Member.
    :ivar status: Creating, Available, Attaching, InUse or Detaching.
    :ivar place: of the device in its instance, the same as long as it is attached; the API does not tell it.
    """

    number: int
    id: str
    mac: str
    vpc_id: str
    vswitch_id: str
    zone: str
    addresses: tuple[str, ...]
    created_at: float
    prefixes: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    kind: str = SECONDARY
    status: str = AVAILABLE
    instance_id: str = ""
    place: int = 0
    network_card: int = 0
    delete_on_release: bool = True
    service_managed: bool = False
    eip_id: str = ""
    tags: Tags = field(default_factory=dict)

    @property
    def slots(self) -> int:
        return len(self.addresses) + len(self.prefixes)


@dataclass(frozen=True, slots=True)
class Instance:
    """`state` is Pending, Running or Stopped; one that is released is forgotten."""

    number: int
    id: str
    type: InstanceType
    vpc_id: str
    vswitch_id: str
    zone: str
    image_id: str
    launched_at: float
    state: str = "Pending"
    group_ids: tuple[str, ...] = ()
    private_address: str = ""
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Eip:
    """An elastic IP. `target_kind` is EcsInstance or NetworkInterface, empty while it leads nowhere."""

    number: int
    id: str
    address: str
    target_kind: str = ""
    target_id: str = ""
    interface_id: str = ""
    tags: Tags = field(default_factory=dict)


Record = Vpc | VSwitch | SecurityGroup | Interface | Instance | Eip
