"""Named pools that their node has no more, since they were taken out of its settings: their interfaces go.

A node says which named pools it has when its default pool connects, and by then it has taken the interfaces of all
others out of its books, durably: no pod gets an address of theirs any more, so nothing is left to be fenced. What pods
that run still use, it goes on to report with its default pool. An interface of ours of which nothing was used for
`release_delay_s` is given up whole, by the same intent and the same last check as any other. If the pool comes back
into the settings meanwhile, the node connects it, and what has not been confirmed by then stays.
"""

from __future__ import annotations

from ipam import whole
from ipam.config import IpamConfig
from ipam.fleet import Fleet
from ipam.model import AddressState, CloudInterface
from ipam.plan import pod_interfaces
from ipam.pools import Pool
from ipam.ports import Capabilities

AGAIN_S = 30.0  # what is used now is looked at again, though each report has it looked at, too


def is_retired(fleet: Fleet, pool: Pool) -> bool:
    """Whether the node, which is connected, says that it has no such pool."""
    node = fleet.pools.get(pool.spec.node)
    return (
        bool(pool.spec.pool)
        and not pool.connected
        and node is not None
        and node.connected
        and node.usage is not None
        and node.spec.instance_id == pool.spec.instance_id
        and node.names is not None
        and pool.spec.pool not in node.names
    )


def in_use(fleet: Fleet, pool: Pool) -> set[str]:
    """What the node, asked for any of its pools, uses; cooling addresses too."""
    usages = [each.usage for each in fleet.pools_of(pool.spec.instance_id) if each.connected and each.usage is not None]
    return {address for each in usages for address in (*each.in_use, *each.cooling)}


def unused(fleet: Fleet, pool: Pool, interface: CloudInterface) -> bool:
    """Whether the node uses no address of the interface."""
    addresses = (interface.primary_address, *interface.all_addresses, *interface.ipv6_addresses)
    return in_use(fleet, pool).isdisjoint(addresses)


def look_after(fleet: Fleet, node: Pool, now: float) -> None:
    """Has pools looked at that the node of this default pool has no more: it has spoken. `now` is monotonic."""
    names = fleet.of_instance.get(node.spec.instance_id, ())
    if len(names) > 1 and not node.spec.pool:
        for pool in fleet.pools_of(node.spec.instance_id):
            if is_retired(fleet, pool):
                fleet.look(pool, now)


def retire(fleet: Fleet, pool: Pool, config: IpamConfig, can: Capabilities, now: float) -> None:
    """Has the next interface of a retired pool leave, if one can; else looks again. For clouds where we create them."""
    if not can.creates_interfaces or not is_retired(fleet, pool):
        return
    if pool.instance is None or not pool.spec.release_excess:
        return
    leaving = whole.find(pool, pool.leaving) if pool.leaving else None
    if leaving is None or not any(each in pool.states for each in leaving.all_addresses):
        pool.leaving = ""
    own = [each for each in pod_interfaces(pool.spec, pool.instance) if whole.ours(pool, each, config.cluster)]
    if not own or pool.leaving or pool.intent_id:
        return
    idle = {each.id: pool.idle_interfaces.get(each.id, now) for each in own if unused(fleet, pool, each)}
    pool.idle_interfaces = idle
    ends = min(idle.values(), default=now + AGAIN_S) + config.release_delay_s
    if not idle or now < ends:
        fleet.look(pool, min(ends, now + AGAIN_S))
        return
    interface = min((each for each in own if each.id in idle), key=lambda each: (idle[each.id], each.id))
    pool.leaving = interface.id
    for address in interface.all_addresses:
        if pool.states.get(address) is not AddressState.RELEASING:
            fleet.set_state(pool, address, AddressState.READY)


def confirm(fleet: Fleet, pool: Pool, addresses: list[str]) -> list[str]:
    """The check at the moment of release, for a pool without a connection: all of `addresses` or none. Those that may
    go are releasing; else the interface stays for now."""
    states = [pool.states.get(each) for each in addresses]
    if AddressState.READY in states:
        interface = whole.find(pool, pool.leaving) if pool.leaving else None
        if interface is None or not is_retired(fleet, pool) or not unused(fleet, pool, interface):
            return []
    if not all(each in (AddressState.READY, AddressState.RELEASING) for each in states):
        return []
    for address in addresses:
        fleet.set_state(pool, address, AddressState.RELEASING)
    return addresses
