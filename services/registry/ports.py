"""What the registry consumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.registry.model import Endpoint, EndpointKey, Identity, Node


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction writes. Removing a node removes its endpoints; `heartbeats` of unknown nodes are dropped.

    Identities are removed before others are written, so a set of labels may move to another number."""

    nodes: Sequence[Node] = ()
    removed_nodes: Sequence[str] = ()
    endpoints: Sequence[Endpoint] = ()
    removed_endpoints: Sequence[EndpointKey] = ()
    heartbeats: Mapping[str, float] = field(default_factory=dict)
    identities: Sequence[Identity] = ()
    removed_identities: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything the store holds, ordered by name, by node and id, and by number."""

    nodes: Sequence[Node]
    endpoints: Sequence[Endpoint]
    identities: Sequence[Identity] = ()


class RegistryStore(Protocol):
    """The registry's tables. Raises errors with the shape of RegistryError when they cannot be reached."""

    async def lead(self) -> int:
        """Raises the fence and returns it: whoever led before is refused from now on."""

    async def load(self) -> Stored: ...

    async def apply(self, changes: Changes, *, leader: int) -> None:
        """Writes all of `changes` or nothing; durable when it returns. `leader` is the fence that `lead` returned.

        Raises StaleLead if another leads by now, NotFound if an endpoint's node does not exist, IdentityTaken if a set
        of labels would have two numbers.
        """


class Clock(Protocol):
    """Time, so that tests own it. `now` is wall-clock seconds, `monotonic` never jumps."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...
