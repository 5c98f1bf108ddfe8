"""Which interface a node can do without, in one piece. Pure.

Releasing address by address leaves interfaces behind that hold nothing but their primary address and a slot of the
instance. An interface of ours on which nothing is used goes whole instead: its addresses are marked together, the node
fences them, and then it is detached and deleted. Its last interface for pods goes only if the node's marks want none.
"""

from __future__ import annotations

from ipam.model import CloudInterface, Usage, Watermarks
from ipam.plan import pod_interfaces
from ipam.pools import Counts, Pool
from ipam.tags import CLUSTER_TAG
from ipam.watermarks import needed


def ours(pool: Pool, interface: CloudInterface, cluster: str) -> bool:
    """Whether the interface may be deleted at all: made by this service, and nothing beside pods depends on it."""
    return (
        interface.tags.get(CLUSTER_TAG) == cluster
        and interface.device_index > 0
        and not interface.public_address_id
        and not pool.spec.use_primary_address
    )


def dispensable(
    pool: Pool, counts: Counts, marks: Watermarks, cluster: str, *, surplus: int, whole_only: bool
) -> CloudInterface | None:
    """The newest interface that could go with all its addresses, and the pool would still be above its marks.

    :param surplus: addresses beyond the marks.
    :param whole_only: addresses go with their interface only; else the excess must cover all that it holds.
    """
    if not surplus or pool.instance is None:
        return None
    for interface in sorted(pod_interfaces(pool.spec, pool.instance), key=lambda each: -each.device_index):
        size = len(interface.all_addresses)
        enough = needed(counts.attached - size, counts.used, marks) == 0 if whole_only else surplus >= size
        if size and enough and ours(pool, interface, cluster) and unused(pool, interface):
            return interface
    return None


def empty(pool: Pool, cluster: str) -> list[str]:
    """Ids of interfaces of ours that hold no address for a pod."""
    if pool.instance is None:
        return []
    return [
        each.id
        for each in pod_interfaces(pool.spec, pool.instance)
        if not each.all_addresses and not each.ipv6_addresses and not each.ipv6_prefixes and ours(pool, each, cluster)
    ]


def unused(pool: Pool, interface: CloudInterface) -> bool:
    """Whether the node says of all its addresses that they are free, and none is on its way to be released."""
    usage = pool.usage or Usage()
    busy = usage.in_use | usage.cooling | usage.ready | usage.refused
    addresses = (interface.primary_address, *interface.all_addresses, *interface.ipv6_addresses)
    return not any(each in busy or each in pool.states or each in pool.unanswered for each in addresses)


def find(pool: Pool, interface_id: str) -> CloudInterface | None:
    interfaces = pool.instance.interfaces if pool.instance is not None else ()
    return next((each for each in interfaces if each.id == interface_id), None)
