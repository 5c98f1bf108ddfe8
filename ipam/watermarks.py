"""How many addresses a node should hold, and when to act on it. Pure arithmetic on counts of addresses.

    attached   addresses on the node's interfaces that can carry pods, those in use included
    used       of these, leased to pods or cooling after one
    pending    pods that wait for an address
    room       addresses that the instance and its subnets could still take

The pool floats between two marks. Below the lower one (`needed` > 0) addresses are asked for, above the upper one
(`excess` > 0) they are released; `max_above_watermark` is the distance between them.
"""

from __future__ import annotations

import math

from ipam.model import Watermarks


def needed(attached: int, used: int, marks: Watermarks) -> int:
    """Addresses missing to the lower mark: `pre_allocate` free ones, and at least `min_allocate` in all."""
    missing = max(marks.pre_allocate + used - attached, marks.min_allocate - attached, 0)
    if marks.max_allocate:
        missing = min(missing, max(marks.max_allocate - attached, 0))
    return missing


def excess(attached: int, used: int, marks: Watermarks) -> int:
    """Addresses beyond the upper mark; taking them away never brings the node below the lower one."""
    return max(attached - _upper(attached, used, marks), 0)


def _upper(attached: int, used: int, marks: Watermarks) -> int:
    floor = marks.min_allocate + marks.max_above_watermark
    if used <= floor and (attached <= floor or used + marks.pre_allocate <= floor):
        return floor
    return used + marks.pre_allocate + marks.max_above_watermark


def unserved(attached: int, used: int, pending: int) -> int:
    """Pods that wait and find nothing free here: what is free already only has to reach them."""
    return max(pending - max(attached - used, 0), 0)


def surge(pending: int, missing: int) -> int:
    """What pods waiting on the node need beyond the addresses `missing` to the lower mark."""
    return max(pending - missing, 0)


def ask(attached: int, used: int, pending: int, marks: Watermarks, room: int) -> int:
    """Addresses to ask of the cloud now: up to the upper mark, so that the next call is far away, and for the surge.

    Where the marks are so close that `needed` + `max_above_watermark` would be an excess at once, it stays below that.
    """
    missing = needed(attached, used, marks)
    waiting = unserved(attached, used, pending)
    if not missing and not waiting:
        return 0
    above = marks.max_above_watermark
    above -= excess(attached + missing + above, used, marks)
    wanted = missing + max(above, 0) + surge(waiting, missing)
    if marks.max_allocate:
        wanted = min(wanted, marks.max_allocate - attached)
    return max(min(wanted, room), 0)


def due(
    attached: int,
    used: int,
    pending: int,
    marks: Watermarks,
    *,
    lasted_s: float,
    coalesce_s: float,
    urgent_fraction: float,
) -> float:
    """Seconds until a deficit that has lasted `lasted_s` should be acted on: 0 is now, infinity is never.

    Pods waiting, a pool below `min_allocate`, or fewer free addresses than `urgent_fraction` of `pre_allocate` cannot
    wait. Anything milder can: pods that start meanwhile are served by the same call, pods that stop may spare it.
    """
    missing = needed(attached, used, marks)
    free = attached - used
    waiting = unserved(attached, used, pending)
    if not missing and not waiting:
        return math.inf
    if waiting or attached < marks.min_allocate or free < urgent_fraction * marks.pre_allocate:
        return 0.0
    return max(coalesce_s - lasted_s, 0.0)
