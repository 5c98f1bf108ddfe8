"""Where nodes live, and of which group a recorded one is."""

from __future__ import annotations

import fnmatch

from ipam.errors import InvalidInput
from ipam.simulation.model import Group, SubnetRule

AMPLE_BITS = 8  # of a zone's only subnet where none is named: more addresses than any fleet has


def ample(groups: tuple[Group, ...]) -> tuple[SubnetRule, ...]:
    """Where none is named, each zone has a subnet that is never full."""
    zones = sorted({zone for group in groups for zone in group.zones})
    return tuple(SubnetRule(f"subnet-{zone}", f"{10 + place}.0.0.0/{AMPLE_BITS}", zone) for place, zone in
                 enumerate(zones))  # fmt: skip


def group_of(groups: tuple[Group, ...], node: str) -> Group:
    """Raises InvalidInput for a recorded node of which nothing says the type."""
    for group in groups:
        if any(fnmatch.fnmatchcase(node, pattern) for pattern in group.names):
            return group
    rest = next((group for group in groups if not group.names), None)
    if rest is None:
        raise InvalidInput(
            f"no group has the recorded node {node!r}", field="group.names",
            remedy="add its name to a group, or a group without names for all others",
        )  # fmt: skip
    return rest
