"""What an instance type holds. The facts are in instance_types.json."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lab.fake_ec2.errors import ApiError


@dataclass(frozen=True, slots=True)
class InstanceType:
    """`network_cards` holds the interfaces that each card takes. `hypervisor` is "nitro", "xen", or empty on metal."""

    name: str
    vcpus: int
    memory_mib: int
    architectures: tuple[str, ...]
    hypervisor: str
    bare_metal: bool
    current_generation: bool
    interfaces: int
    ipv4_per_interface: int
    ipv6_per_interface: int
    ipv6: bool
    network_performance: str
    network_cards: tuple[int, ...]

    @property
    def prefixes(self) -> bool:
        return self.hypervisor == "nitro" or self.bare_metal


def _read(name: str, facts: dict[str, Any]) -> InstanceType:
    lists = {key: tuple(facts[key]) for key in ("architectures", "network_cards")}
    return InstanceType(name=name, **{**facts, **lists})


@functools.cache
def instance_types() -> dict[str, InstanceType]:
    """By name, in the order of their names."""
    text = resources.files("lab.fake_ec2").joinpath("instance_types.json").read_text()
    return {name: _read(name, facts) for name, facts in json.loads(text).items()}


def instance_type(name: str) -> InstanceType:
    """Raises ApiError for a type that the table lacks."""
    try:
        return instance_types()[name]
    except KeyError:
        raise ApiError("InvalidInstanceType", f"The following supplied instance types do not exist: [{name}]") from None
