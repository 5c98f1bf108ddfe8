"""Several pools of one node share its instance: whose an interface is, and whose word on it counts. Pure.

Each pool has work of its own at the cloud, and two workers may be at the same instance at once. Each of them reads the
whole instance, so what it says of the other's interfaces may be older than what the other has done. A pool's report
therefore speaks of its own interfaces only, and of those that are no pool's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ipam.model import CloudInterface, Instance
from ipam.plan import belongs
from ipam.pools import Pool


def home_of(interface: CloudInterface, pools: Sequence[Pool]) -> Pool | None:
    """The pool that owns the interface, out of those of its instance; the first one owns what is no pool's.

    None: the instance has no pool."""
    if len(pools) == 1:
        return pools[0]
    return next((each for each in pools if belongs(each.spec, interface)), pools[0] if pools else None)


def merged(pool: Pool, pools: Sequence[Pool], told: Instance) -> Instance:
    """What is known of the instance once `pool` has told of it.

    An interface that moves between two pools, since its tag was changed, does so when the pool that it leaves tells.
    """
    known = pool.instance
    if known is None or len(pools) == 1:
        return told
    others = [each for each in pools if each is not pool]
    homes = {each.id: home_of(each, pools) for each in known.interfaces}
    kept = [each for each in known.interfaces if _is_of(each, others)]
    stays = {each.id for each in kept}
    new = [
        each
        for each in told.interfaces
        if each.id not in stays and (homes.get(each.id) is pool or not _is_of(each, others))
    ]
    interfaces = sorted((*kept, *new), key=lambda each: (each.network_card, each.device_index))
    return replace(told, interfaces=tuple(interfaces))


def _is_of(interface: CloudInterface, pools: Sequence[Pool]) -> bool:
    return any(belongs(each.spec, interface) for each in pools)


def is_over(pool: Pool) -> bool:
    """Whether nothing is left of a named pool. If its node has it still, the node says so when it comes back."""
    interfaces = pool.instance.interfaces if pool.instance is not None else ()
    return bool(pool.spec.pool) and not pool.intent_id and not any(belongs(pool.spec, each) for each in interfaces)
