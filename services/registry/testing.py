"""Fakes of the registry's ports."""

from __future__ import annotations

from dataclasses import replace

from services.registry.errors import IdentityTaken, NotFound, StaleLead
from services.registry.model import Endpoint, EndpointKey, Identity, Node
from services.registry.ports import Changes, Stored


class MemoryStore:
    """RegistryStore whose content outlives the service that a test restarts. The next write raises `fail`, once."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._endpoints: dict[EndpointKey, Endpoint] = {}
        self._identities: dict[int, Identity] = {}
        self.fail: Exception | None = None
        self.written: list[Changes] = []
        self._fence = 0

    async def lead(self) -> int:
        self._fence += 1
        return self._fence

    async def load(self) -> Stored:
        return Stored(
            nodes=[self._nodes[name] for name in sorted(self._nodes)],
            endpoints=[self._endpoints[key] for key in sorted(self._endpoints)],
            identities=[self._identities[number] for number in sorted(self._identities)],
        )

    async def apply(self, changes: Changes, *, leader: int) -> None:
        if leader != self._fence:
            raise StaleLead(f"leader {leader} was followed by {self._fence}")
        error, self.fail = self.fail, None
        if error is not None:
            raise error
        nodes = {name: node for name, node in self._nodes.items() if name not in changes.removed_nodes}
        nodes |= {node.name: node for node in changes.nodes}
        endpoints = {
            key: endpoint
            for key, endpoint in self._endpoints.items()
            if key not in changes.removed_endpoints and key[0] not in changes.removed_nodes
        }
        endpoints |= {endpoint.key: endpoint for endpoint in changes.endpoints}
        for node, _ in endpoints:
            if node not in nodes:
                raise NotFound(f"endpoints of a node that is not registered: {node}", field="endpoints")
        identities = {n: one for n, one in self._identities.items() if n not in changes.removed_identities}
        identities |= {one.number: one for one in changes.identities}
        if len({tuple(sorted(one.labels.items())) for one in identities.values()}) < len(identities):
            raise IdentityTaken("a set of labels would have two numbers")
        for name, heartbeat_at in changes.heartbeats.items():
            if name in nodes:
                nodes[name] = replace(nodes[name], heartbeat_at=heartbeat_at)
        self._nodes, self._endpoints, self._identities = nodes, endpoints, identities
        self.written.append(changes)


class FakeClock:
    """`advance` passes time for both clocks; `jump` moves the wall clock alone, as an operator or NTP does."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        self._now += seconds


__all__ = ["FakeClock", "MemoryStore"]
