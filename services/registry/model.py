"""Nodes and endpoints as frozen facts; times are seconds since the epoch."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class NodeState(enum.StrEnum):
    READY = "ready"
    # Its heartbeat is overdue; what it runs is assumed to go on.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs the node daemon. `addresses`: its own, the one it speaks from first."""

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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod's interface. `id` is unique on its node: container id and interface name, joined by "/"."""

    node: str
    id: str
    pod: str = ""
    addresses: tuple[str, ...] = ()
    mac: str = ""
    interface_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0

    @property
    def key(self) -> EndpointKey:
        return (self.node, self.id)


# Node and id.
EndpointKey = tuple[str, str]
