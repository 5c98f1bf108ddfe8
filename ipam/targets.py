"""Warm targets as marks: free addresses, prefixes or interfaces, and an amount that a node starts with. Pure.

A cloud hands out addresses in units: single ones, prefixes, whole interfaces. Keeping N units warm means that N units'
worth of addresses are free, and that less than one unit more is not given back: taking a single address out of a unit
has another one fetched, and it is only let go once a whole one is free beyond the target.

    target               free addresses at least    asked for, given back
    warm_addresses N     N                          as the marks say
    warm_prefixes N      N x 16                     by 16
    warm_interfaces N    N x addresses of one       by as many as one holds

With `warm_addresses` 0, and `min_allocate` 0, a node keeps nothing: a pod waits until its address has been fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ipam.model import Limits, NodeSpec, Policy, Watermarks
from ipam.watermarks import ask, excess

PREFIX_SIZE = 16


@dataclass(frozen=True, slots=True)
class Units:
    """Addresses in one prefix and for pods on one interface; 0: not known."""

    prefix: int = PREFIX_SIZE
    interface: int = 0


def units(spec: NodeSpec, limits: Limits | None) -> Units:
    """Of a node's instance type."""
    if limits is None:
        return Units()
    slots = max(limits.ipv4_per_interface - 1, 0)
    whole = spec.prefix_delegation and limits.prefixes
    return Units(PREFIX_SIZE, slots * PREFIX_SIZE if whole else slots)


def target(policy: Policy) -> str:
    """The name of the target that is set, or ""; addresses go before prefixes, and these before interfaces."""
    if policy.warm_addresses is not None:
        return "warm_addresses"
    if policy.warm_prefixes is not None:
        return "warm_prefixes"
    return "warm_interfaces" if policy.warm_interfaces is not None else ""


def marks_of(base: Watermarks, policy: Policy, sizes: Units) -> Watermarks:
    """`base` with the target of `policy` in the place of its `pre_allocate`."""
    match target(policy):
        case "warm_addresses":
            return replace(base, pre_allocate=policy.warm_addresses or 0)
        case "warm_prefixes":
            return _of_units(base, policy.warm_prefixes or 0, sizes.prefix)
        case "warm_interfaces":
            # Until the instance type is known, an address is a beginning: its answer brings the limits.
            return _of_units(base, policy.warm_interfaces or 0, sizes.interface or 1)
        case _:
            return base


def _of_units(base: Watermarks, count: int, size: int) -> Watermarks:
    return replace(base, pre_allocate=count * size, max_above_watermark=size - 1)


def unit_of(policy: Policy, sizes: Units) -> int:
    """By how many addresses a node grows and shrinks at least."""
    match target(policy):
        case "warm_prefixes":
            return sizes.prefix
        case "warm_interfaces":
            return max(sizes.interface, 1)
        case _:
            return 1


def ask_units(attached: int, used: int, pending: int, marks: Watermarks, room: int, unit: int) -> int:
    """watermarks.ask, so that whole units are held where room and `max_allocate` allow it."""
    if unit <= 1:
        return ask(attached, used, pending, marks, room)
    wanted = ask(attached, used, pending, replace(marks, max_above_watermark=0), room)
    if not wanted:
        return 0
    most = min(room, marks.max_allocate - attached) if marks.max_allocate else room
    return min(-(-(attached + wanted) // unit) * unit - attached, max(most, 0))


def excess_units(attached: int, used: int, marks: Watermarks, unit: int) -> int:
    """watermarks.excess, in whole units that are free beyond the lower mark."""
    if unit <= 1:
        return excess(attached, used, marks)
    return max(attached - max(used + marks.pre_allocate, marks.min_allocate), 0) // unit * unit


def warming(marks: Watermarks, policy: Policy) -> Watermarks:
    """The marks of a node that has not had its first `warm_up` addresses yet."""
    least = max(marks.min_allocate, policy.warm_up)
    return replace(marks, min_allocate=min(least, marks.max_allocate) if marks.max_allocate else least)


def by_interface(policy: Policy) -> bool:
    """Whether addresses are given back with their whole interface only."""
    return target(policy) == "warm_interfaces"
