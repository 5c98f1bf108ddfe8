"""Rules that set marks, targets, subnets and groups of nodes by their labels. Pure.

service's defaults  <  rules that match, in their order, later ones over earlier ones  <  the node's own words
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ipam.model import NO_TAGS, NodeSpec

TARGETS = ("warm_addresses", "warm_prefixes", "warm_interfaces")


@dataclass(frozen=True, slots=True)
class Override:
    """What nodes with all of `match_labels` get.

    :ivar watermarks: fields of Watermarks that differ; `policy`: of Policy; `spec`: of NodeSpec.
    """

    name: str
    match_labels: Mapping[str, str] = NO_TAGS
    watermarks: Mapping[str, int] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items())


def matching(overrides: Iterable[Override], labels: Mapping[str, str]) -> list[Override]:
    """The rules that a node with `labels` gets, in their order."""
    return [each for each in overrides if each.matches(labels)]


def overridden(defaults: NodeSpec, overrides: Sequence[Override], labels: Mapping[str, str]) -> NodeSpec:
    """The defaults of a node with `labels`. Subnets and groups by tags replace those by id, and the reverse."""
    for rule in matching(overrides, labels):
        policy = defaults.policy
        if any(name in rule.policy for name in TARGETS):
            policy = replace(policy, warm_addresses=None, warm_prefixes=None, warm_interfaces=None)
        chosen = dict(rule.spec)
        for kind in ("subnet", "security_group"):
            if chosen.get(f"{kind}_tags"):
                chosen.setdefault(f"{kind}_ids", ())
            elif chosen.get(f"{kind}_ids"):
                chosen.setdefault(f"{kind}_tags", NO_TAGS)
        defaults = replace(
            defaults,
            watermarks=replace(defaults.watermarks, **rule.watermarks),
            policy=replace(policy, **rule.policy),
            **chosen,
        )
    return defaults
