"""Which nodes' live interfaces have drifted, and when a repair of them is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ipam.config import IpamConfig
from ipam.drift import Drift, abilities, drifts
from ipam.fleet import Fleet
from ipam.model import Instance, Limits, NodeSpec
from ipam.pools import Pool
from ipam.ports import Capabilities

# Groups and subnets change without the instance doing so.
AGE_S = 30.0
# What a repair did not mend (no public address is free) is not asked of the cloud with every review.
AGAIN_S = 300.0


@dataclass(slots=True)
class _Look:
    instance: Instance
    spec: NodeSpec
    at: float
    found: list[Drift]
    tried: list[Drift]
    tried_at: float


class Drifted:
    """Remembers what it found of each node, since nodes are reviewed far more often than their interfaces change."""

    def __init__(
        self, config: IpamConfig, capabilities: Capabilities, fleet: Fleet, limits: Callable[[Pool], Limits | None]
    ) -> None:
        self._config = config
        self._can = abilities(capabilities)
        self._fleet = fleet
        self._limits = limits
        self._looks: dict[str, _Look] = {}

    def due(self, pool: Pool, now: float) -> bool:
        """Whether something is to be repaired now; answering yes counts as trying it."""
        if pool.instance is None or not pool.connected:
            self._looks.pop(pool.spec.name, None)
            return False
        look = self._look(pool, pool.instance, now)
        if not look.found:
            return False
        if look.found == look.tried and now - look.tried_at < AGAIN_S:
            self._fleet.look(pool, look.tried_at + AGAIN_S)
            return False
        look.tried, look.tried_at = look.found, now
        return True

    def _look(self, pool: Pool, instance: Instance, now: float) -> _Look:
        known = self._looks.get(pool.spec.name)
        if known is not None and (known.instance, known.spec) == (instance, pool.spec) and now - known.at < AGE_S:
            return known
        found = drifts(
            pool.spec, instance, can=self._can, cluster=self._config.cluster, tags=self._config.interface_tags,
            groups=list(self._fleet.groups.values()), subnets=self._fleet.subnets.values(), limits=self._limits(pool),
        )  # fmt: skip
        look = _Look(instance, pool.spec, now, found, [], 0.0)
        if len(self._looks) > 2 * len(self._fleet.pools):  # nodes that are gone
            self._looks = {name: each for name, each in self._looks.items() if name in self._fleet.pools}
        if known is not None:
            look.tried, look.tried_at = known.tried, known.tried_at
        self._looks[pool.spec.name] = look
        return look
