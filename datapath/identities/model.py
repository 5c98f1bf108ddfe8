"""The cluster as this node knows it, in frozen facts; no I/O. Whoever hears of it (the registry's client) makes these.

An identity is the number of a set of labels, the same on every node: 24 bits, from IDENTITY_FIRST on. Those below are
reserved. Addresses and prefixes are canonical text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

UNKNOWN: Final = 0
HOST: Final = 1
WORLD: Final = 2
REMOTE_NODE: Final = 3
# A pod without a number: the registry has not told its labels yet, or has no number left for them.
UNMANAGED: Final = 4
IDENTITY_FIRST: Final = 256
IDENTITY_MAX: Final = 0xFFFFFF

# Node and id (container id and interface name, joined by "/").
EndpointKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node of the cluster, this one included: who takes its own facts from elsewhere leaves it out by its name.

    :ivar addresses: its own, the one it speaks from first; both families may be there.
    :ivar pod_cidrs: ranges that its pods' addresses come from, at most one of each family; empty with a cloud's IPAM.
    :ivar routing_mode: how packets for its pods find it: "tunnel", "direct", "native", or empty: it did not say.
    :ivar tunnel_address: where it takes tunnelled packets; empty: at the first of `addresses`.
    """

    name: str
    addresses: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    routing_mode: str = ""
    tunnel_address: str = ""


@dataclass(frozen=True, slots=True)
class ClusterEndpoint:
    """A pod's interface anywhere in the cluster, this node included.

    :ivar node: where it runs. Its node may be missing from `ClusterState.nodes` for a moment.
    :ivar pod: "namespace/name", empty if nobody told.
    :ivar addresses: at most one of each family for pods of this project's nodes; others may have more.
    :ivar identity: UNMANAGED or IDENTITY_FIRST and up.
    """

    node: str
    id: str
    addresses: tuple[str, ...] = ()
    identity: int = UNMANAGED
    labels: Mapping[str, str] = field(default_factory=dict)
    pod: str = ""

    @property
    def key(self) -> EndpointKey:
        return (self.node, self.id)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One thing before and after; None: it was not there, or is gone. Never None twice, and never equal."""

    before: T | None
    after: T | None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Everything that is known, and what of it is new since the state before.

    The mappings belong to whoever made them and are neither copied nor changed while the receiver works: use them
    before returning, keep values and not mappings. Values are immutable.

    An address may move between endpoints (its pod ended here and another began there), and its new one may be told
    before the old one is gone, in this state or an earlier one: remember which endpoint an address was written for,
    and forget it only if that one is gone.

    :ivar nodes: by name.
    :ivar endpoints: by node and id.
    :ivar node_changes: by name; what is not in here is as it was. Empty states change nothing.
    :ivar endpoint_changes: by node and id, in the registry's order: of two endpoints with one address the later wins.
    :ivar whole: this is the first state since the start: everything is among the changes, and what the receiver holds
        from an earlier life and does not find here is stale.
    """

    nodes: Mapping[str, ClusterNode] = field(default_factory=dict)
    endpoints: Mapping[EndpointKey, ClusterEndpoint] = field(default_factory=dict)
    node_changes: Mapping[str, Change[ClusterNode]] = field(default_factory=dict)
    endpoint_changes: Mapping[EndpointKey, Change[ClusterEndpoint]] = field(default_factory=dict)
    whole: bool = False


__all__ = [
    "HOST",
    "IDENTITY_FIRST",
    "IDENTITY_MAX",
    "REMOTE_NODE",
    "UNKNOWN",
    "UNMANAGED",
    "WORLD",
    "Change",
    "ClusterEndpoint",
    "ClusterNode",
    "ClusterState",
    "EndpointKey",
]
