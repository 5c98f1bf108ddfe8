"""What an instance type holds. The facts are in instance_types.json."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources

from lab.fake_alibaba.errors import ApiError


@dataclass(frozen=True, slots=True)
class InstanceType:
    """Addresses per interface include the primary one; a prefix fills one of their slots."""

    name: str
    vcpus: int
    memory_gib: float
    interfaces: int
    ipv4_per_interface: int
    ipv6_per_interface: int

    @property
    def family(self) -> str:
        return self.name.rpartition(".")[0]


@functools.cache
def instance_types() -> dict[str, InstanceType]:
    """By name, in the order of their names."""
    text = resources.files("lab.fake_alibaba").joinpath("instance_types.json").read_text()
    return {name: InstanceType(name, **facts) for name, facts in sorted(json.loads(text).items())}


def instance_type(name: str) -> InstanceType:
    """Raises ApiError for a type that the table lacks."""
    try:
        return instance_types()[name]
    except KeyError:
        message = f"The specified InstanceType {name} does not exist or beyond the permitted range."
        raise ApiError("InvalidInstanceType.ValueNotSupported", message) from None
