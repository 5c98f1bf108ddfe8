"""Nodes and endpoints as frozen facts; times are seconds since the epoch."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Numbers of sets of labels; those below are reserved, and 24 bits are what tunnels and packet marks carry.
IDENTITY_FIRST: Final = 256
IDENTITY_MAX: Final = 0xFFFFFF
# Of an endpoint without a number.
UNMANAGED: Final = 4


class NodeState(enum.StrEnum):
    READY = "ready"
    # Its heartbeat is overdue; what it runs is assumed to go on.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs the node daemon.

    :ivar addresses: its own, the one it speaks from first.
    :ivar pod_cidrs: ranges of its pods' addresses, at most one of each family.
    :ivar routing_mode: how packets find its pods: "tunnel", "direct", "native" or empty.
    :ivar tunnel_address: where it takes tunnelled packets; empty: at the first of `addresses`.
    """

    name: str
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    cloud: str = ""
    instance_id: str = ""
    instance_type: str = ""
    zone: str = ""
    version: str = ""
    state: NodeState = NodeState.READY
    registered_at: float = 0.0
    heartbeat_at: float = 0.0
    pod_cidrs: tuple[str, ...] = ()
    routing_mode: str = ""
    tunnel_address: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Addresses for pods, as a node told last.

    :ivar obtainable: how many more it could get. `limited_by`: "limits" of its instance, or "subnets".
    """

    attached: int = 0
    in_use: int = 0
    obtainable: int = 0
    limited_by: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod's interface.

    :ivar id: unique on its node: container id and interface name, joined by "/".
    :ivar identity: number of its labels; UNMANAGED: there was none left; 0: the registry has not seen it yet.
    """

    node: str
    id: str
    pod: str = ""
    addresses: tuple[str, ...] = ()
    mac: str = ""
    interface_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    identity: int = 0

    @property
    def key(self) -> EndpointKey:
        return (self.node, self.id)


@dataclass(frozen=True, slots=True)
class Identity:
    """A number and the set of labels that it stands for."""

    number: int
    labels: Mapping[str, str]


# Node and id.
EndpointKey = tuple[str, str]
