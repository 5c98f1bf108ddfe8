"""The cluster as the registry's stream tells it, with what is new each time: changes cost by their number, not by the
cluster's size.

What a registry of another life does not know (it lost its store, say, and other nodes have not come back to it yet) is
kept for a while: running pods must not lose each other over it. What it says is gone, is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from datapath.identities.model import UNMANAGED, Change, ClusterEndpoint, ClusterNode, ClusterState, EndpointKey
from services.api.registry.v1 import registry_pb2
from services.api.watch.v1 import watch_pb2
from services.runtime.watch import Mirror

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")


class _Things(Generic[K, M]):
    """One kind of thing: its mirror, changes that nobody has taken yet, and what may be gone.

    :ivar changes: by key, the last change last.
    :ivar doubtful: monotonic seconds until which a thing is kept that a new life of the registry does not know.
    """

    def __init__(self) -> None:
        self.mirror: Mirror[K, M] = Mirror()
        self.changes: dict[K, Change[M]] = {}
        self.doubtful: dict[K, float] = {}

    def apply(self, header: watch_pb2.Header, upserts: Mapping[K, M], deletes: list[K], keep_until: float) -> None:
        """:param keep_until: for what a snapshot of another life of the registry does not name."""
        mirror, before, epoch = self.mirror, self.mirror.state, self.mirror.position.epoch
        known = [(key, before.get(key)) for key in (*upserts, *deletes)]
        mirror.apply(header, upserts, deletes)
        for key in (*upserts, *deletes):
            self.doubtful.pop(key, None)
        for key, was in known:
            self._note(key, was, before.get(key))  # the same, while a snapshot is on its way
        if mirror.state is before:
            return
        for key in [one for one in self.doubtful if one in mirror.state]:
            del self.doubtful[key]
        if epoch and epoch != mirror.position.epoch:
            for key in before.keys() - mirror.state.keys():
                mirror.state[key] = before[key]
                self.doubtful.setdefault(key, keep_until)
        for key in before.keys() - mirror.state.keys():
            self._note(key, before[key], None)
        for key, value in mirror.state.items():
            self._note(key, before.get(key), value)

    def expire(self, now: float) -> None:
        """Forgets what is doubtful for too long."""
        for key in [key for key, until in self.doubtful.items() if until <= now]:
            del self.doubtful[key]
            self._note(key, self.mirror.state.pop(key, None), None)

    def _note(self, key: K, before: M | None, after: M | None) -> None:
        if before == after:
            return
        untaken = self.changes.pop(key, None)
        if untaken is not None:
            before = untaken.before
        if before != after:
            self.changes[key] = Change(before, after)


class Cluster:
    """What is known of the cluster, in the order of the stream's messages.

    :param now: monotonic seconds.
    :param doubt_s: how long what a new life of the registry does not know is kept: nodes come back to it within less.
    """

    def __init__(self, now: Callable[[], float], *, doubt_s: float = 60.0) -> None:
        self._now = now
        self._doubt_s = doubt_s
        self._nodes: _Things[str, ClusterNode] = _Things()
        self._endpoints: _Things[EndpointKey, ClusterEndpoint] = _Things()
        self._told = False
        self._taken = False

    def apply(self, response: registry_pb2.WatchResponse) -> ClusterState | None:
        """The state to bring into force; None: there is nothing new, or a snapshot is not complete yet."""
        until = self._now() + self._doubt_s
        nodes = {one.name: _node(one) for one in response.nodes}
        self._nodes.apply(response.header, nodes, list(response.deleted_nodes), until)
        endpoints = {(one.node, one.id): _endpoint(one) for one in response.endpoints}
        gone = [(one.node, one.id) for one in response.deleted_endpoints]
        self._endpoints.apply(response.header, endpoints, gone, until)
        if not response.header.complete:
            return None
        self._told = True
        return self._state()

    def expire(self) -> ClusterState | None:
        """The state without what is doubtful for too long; None: that changes nothing."""
        now = self._now()
        self._nodes.expire(now)
        self._endpoints.expire(now)
        return self._state()

    def taken(self) -> None:
        """The last state is in force. Until this is said, its changes are in the following ones too."""
        self._taken = True
        self._nodes.changes, self._endpoints.changes = {}, {}

    def doubtful_for_s(self) -> float:
        """Seconds until `expire` has something to do; infinite if nothing is doubtful."""
        ends = [*self._nodes.doubtful.values(), *self._endpoints.doubtful.values()]
        return max(0.0, min(ends) - self._now()) if ends else math.inf

    def identity_of(self, key: EndpointKey) -> int:
        """An endpoint's identity as the registry told it; 0: not yet."""
        endpoint = self._endpoints.mirror.state.get(key)
        return 0 if endpoint is None else endpoint.identity

    def counts(self) -> tuple[int, int]:
        """Nodes and endpoints."""
        return len(self._nodes.mirror.state), len(self._endpoints.mirror.state)

    def _state(self) -> ClusterState | None:
        whole = self._told and not self._taken
        if not (whole or self._nodes.changes or self._endpoints.changes):
            return None
        return ClusterState(
            self._nodes.mirror.state,
            self._endpoints.mirror.state,
            self._nodes.changes,
            self._endpoints.changes,
            whole=whole,
        )


def _node(message: registry_pb2.Node) -> ClusterNode:
    return ClusterNode(
        name=message.name,
        addresses=tuple(message.addresses),
        pod_cidrs=tuple(message.pod_cidrs),
        routing_mode=message.routing_mode,
        tunnel_address=message.tunnel_address,
    )


def _endpoint(message: registry_pb2.Endpoint) -> ClusterEndpoint:
    return ClusterEndpoint(
        node=message.node,
        id=message.id,
        addresses=tuple(message.addresses),
        # A registry of an older release gives none.
        identity=message.identity or UNMANAGED,
        labels=dict(message.labels),
        pod=message.pod,
    )


__all__ = ["Cluster"]
