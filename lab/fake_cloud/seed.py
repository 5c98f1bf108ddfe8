"""What the networks that fake clouds start with have in common: from a file (TOML or JSON), or from flags."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class BadSeed(ValueError):
    """The start file or the flags say something that cannot be; the text names it."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SubnetSeed(Strict):
    """`zone` is the zone's letter or its whole name."""

    zone: str
    cidr: str
    tags: dict[str, str] = {}


class GroupSeed(Strict):
    name: str
    description: str = "made at the start"
    tags: dict[str, str] = {}


class VpcSeed(Strict):
    cidr: str = "10.0.0.0/16"
    tags: dict[str, str] = {}
    subnets: list[SubnetSeed] = []
    security_groups: list[GroupSeed] = []


S = TypeVar("S", bound=Strict)


def default_subnets(cidr: str, subnets: Sequence[SubnetSeed] = ()) -> list[SubnetSeed]:
    """Subnets in zones a, b and c of a /16, unless others are given."""
    if not subnets and cidr == "10.0.0.0/16":
        blocks = ("10.0.0.0/20", "10.0.16.0/20", "10.0.32.0/20")
        return [SubnetSeed(zone=zone, cidr=block) for zone, block in zip("abc", blocks, strict=True)]
    return list(subnets) or [SubnetSeed(zone="a", cidr=cidr)]


def read_seed(path: Path, kind: type[S]) -> S:
    """Raises BadSeed, which names file and field."""
    try:
        text = path.read_text()
        document = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadSeed(f"{path}: {where}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise BadSeed(f"{path}: {error}") from None


def read_subnets(flags: Sequence[str]) -> list[SubnetSeed]:
    """Subnets as flags say them: ZONE=CIDR. Raises BadSeed."""
    rows = []
    for each in flags:
        zone, found, cidr = each.partition("=")
        if not (zone and found and cidr):
            raise BadSeed(f"--subnet {each}: must be ZONE=CIDR, as a=10.0.0.0/20")
        rows.append(SubnetSeed(zone=zone, cidr=cidr))
    return rows


def check_listen(listen: str) -> None:
    """Raises BadSeed."""
    host, _, port = listen.rpartition(":")
    if listen and not listen.startswith("unix:/") and not (host and port.isdecimal() and int(port) < 65536):
        raise BadSeed(f"--listen {listen}: must be HOST:PORT or unix:/PATH")
