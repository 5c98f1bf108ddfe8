"""The release handshake: an address leaves a node only after the node has fenced it.

    available ──marked by the service──▶ marked ──the node fences it──▶ ready ──confirm, durably──▶ releasing ──▶ gone
        ▲                                  │ the node refuses             │ demand returns
        └──────────────────────────────────┴──────────────────────────────┘

The node answers each marking once, ready or refused, and keeps an address fenced until it is told that it is available
again. A marked address is therefore not simply taken back when demand returns: its answer is awaited first, for an
answer that is still on its way must never be taken for one to a later marking.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ipam import retired
from ipam.fleet import Fleet
from ipam.model import AddressState, CloudInterface, members
from ipam.plan import pod_interfaces
from ipam.pools import Pool

HANDSHAKE_S = 60.0
QUARANTINE_S = 600.0  # far longer than any message can be on its way over a connection that is alive


def hear(fleet: Fleet, pool: Pool) -> None:
    """Takes the node's answers out of its newest usage."""
    usage = pool.usage
    if usage is None:
        return
    for address in list(pool.unanswered):
        if address in usage.ready or address in usage.refused:
            del pool.unanswered[address]
    for address, state in list(pool.states.items()):
        if state is AddressState.MARKED:
            if address in usage.refused:
                fleet.set_state(pool, address, AddressState.AVAILABLE)
                pool.excess_since = None
            elif address in usage.ready:
                fleet.set_state(pool, address, AddressState.READY)
        elif state is AddressState.READY and not _fenced(pool, address):
            fleet.set_state(pool, address, AddressState.AVAILABLE)
            pool.excess_since = None
    _mend(fleet, pool)


def abort(fleet: Fleet, pool: Pool) -> None:
    """Takes back all that is not being released yet: the node is away, or begins a new connection."""
    for address, state in list(pool.states.items()):
        if state is not AddressState.RELEASING:
            fleet.set_state(pool, address, AddressState.AVAILABLE)
    pool.excess_since = None
    pool.unanswered.clear()


def give_back(fleet: Fleet, pool: Pool, surplus: int) -> None:
    """Demand has returned: up to `surplus` of the addresses that the node has fenced are available again."""
    for address in pool.in_state(AddressState.READY)[: max(surplus, 0)]:
        fleet.set_state(pool, address, AddressState.AVAILABLE)
    _mend(fleet, pool)


def expire(fleet: Fleet, pool: Pool, monotonic: float) -> None:
    """Gives up on a node that does not answer, and keeps those addresses out of the next markings."""
    marked = pool.in_state(AddressState.MARKED)
    if not marked:
        return
    if monotonic - pool.marked_at < HANDSHAKE_S:
        fleet.look(pool, pool.marked_at + HANDSHAKE_S)
        return
    for address in marked:
        fleet.set_state(pool, address, AddressState.AVAILABLE)
        pool.unanswered[address] = monotonic + QUARANTINE_S
    pool.excess_since = None
    _mend(fleet, pool)


def mark(fleet: Fleet, pool: Pool, count: int, monotonic: float, subnet_ids: Collection[str] | None = None) -> int:
    """Marks up to `count` free addresses of the interface that can give most of them; returns how many.

    :param subnet_ids: of interfaces in these only.

    Members of a prefix are marked all together, or none."""
    chosen = _releasable(pool, count, monotonic, subnet_ids)
    for address in chosen:
        fleet.set_state(pool, address, AddressState.MARKED)
    if chosen:
        pool.marked_at = monotonic
        fleet.look(pool, monotonic + HANDSHAKE_S)
    return len(chosen)


def mark_whole(fleet: Fleet, pool: Pool, interface: CloudInterface, monotonic: float) -> None:
    """Marks all addresses of an interface of which none is used; it is released in one piece."""
    for address in interface.all_addresses:
        fleet.set_state(pool, address, AddressState.MARKED)
    pool.leaving = interface.id
    pool.marked_at = monotonic
    fleet.look(pool, monotonic + HANDSHAKE_S)


def confirm(fleet: Fleet, pool: Pool, addresses: Sequence[str]) -> list[str]:
    """The check at the moment of release: of `addresses` those that the node holds fenced now. They are releasing.

    A prefix is unassigned whole, so none of its members goes unless all may."""
    if pool.leaving and not pool.connected:
        allowed = retired.confirm(fleet, pool, list(addresses))
        if len(allowed) < len(addresses):
            abort(fleet, pool)
            pool.leaving = ""
        return allowed
    may = {address for address in addresses if _may_go(pool, address)}
    for prefix in _prefixes(pool):
        if not may.issuperset(members(prefix)):
            may.difference_update(members(prefix))
    allowed = [address for address in addresses if address in may]
    for address in allowed:
        if pool.states[address] is not AddressState.RELEASING:
            fleet.set_state(pool, address, AddressState.RELEASING)
    return allowed


def _may_go(pool: Pool, address: str) -> bool:
    state = pool.states.get(address)
    if state is AddressState.READY:
        return pool.connected and _fenced(pool, address)
    return state is AddressState.RELEASING


def _prefixes(pool: Pool) -> Iterator[str]:
    for interface in pool.instance.interfaces if pool.instance is not None else ():
        yield from interface.prefixes


def _mend(fleet: Fleet, pool: Pool) -> None:
    """Takes fenced members of a prefix back whose others stay: nothing of it can be released."""
    if not pool.states:
        return
    for prefix in _prefixes(pool):
        states = [pool.states.get(address) for address in members(prefix)]
        if AddressState.READY in states and None in states and AddressState.MARKED not in states:
            for address, state in zip(members(prefix), states, strict=True):
                if state is AddressState.READY:
                    fleet.set_state(pool, address, AddressState.AVAILABLE)
            pool.excess_since = None


def _fenced(pool: Pool, address: str) -> bool:
    usage = pool.usage
    return (
        usage is not None
        and address in usage.ready
        and address not in usage.in_use
        and address not in usage.cooling
        and address not in usage.refused
    )


def _releasable(pool: Pool, count: int, monotonic: float, subnet_ids: Collection[str] | None) -> list[str]:
    """Single addresses first: a slot that one of them fills could hold a prefix."""
    if pool.usage is None or pool.instance is None:
        return []
    for address in [each for each, until in pool.unanswered.items() if until <= monotonic]:
        del pool.unanswered[address]
    best: list[str] = []
    for interface in pod_interfaces(pool.spec, pool.instance):
        if subnet_ids is not None and interface.subnet_id not in subnet_ids:
            continue
        free = [address for address in reversed(interface.addresses) if _free(pool, address)][:count]
        for prefix in reversed(interface.prefixes):
            whole = members(prefix)
            if len(free) + len(whole) <= count and all(_free(pool, address) for address in whole):
                free += whole
        if len(free) >= len(best):
            best = free
    return best


def _free(pool: Pool, address: str) -> bool:
    usage = pool.usage
    return (
        usage is not None
        and address not in usage.in_use
        and address not in usage.cooling
        and address not in usage.ready  # still fenced from the last time
        and address not in usage.refused
        and address not in pool.states
        and address not in pool.unanswered
    )
