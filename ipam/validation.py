"""What a node may say of itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from ipam.errors import InvalidInput
from ipam.model import NodeSpec

POOL_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,29}[a-z0-9])?")
POOL_NAME_REMEDY: Final = "use 1 to 31 lower-case letters, digits and '-', which neither begin nor end it"
DEFAULT_POOL: Final = "default"  # people call it so: no named pool may


def is_pool_name(text: str) -> bool:
    """Whether a pool of a node may have that name."""
    return bool(POOL_NAME.fullmatch(text)) and text != DEFAULT_POOL


def in_lower_case(spec: NodeSpec) -> NodeSpec:
    """The same with ids as a provider tells them that ignores their case."""
    return replace(
        spec, instance_id=spec.instance_id.lower(), subnet_ids=tuple(map(str.lower, spec.subnet_ids)),
        security_group_ids=tuple(map(str.lower, spec.security_group_ids)),
    )  # fmt: skip


def validate(spec: NodeSpec) -> None:
    """Raises InvalidInput with the field to blame."""
    for field, value in (("name", spec.name), ("instance_id", spec.instance_id)):
        if not value or value != value.strip():
            raise InvalidInput(f"{field} is {value!r}", field=field, remedy="give it a name without blanks around it")
    if "/" in spec.name and not is_pool_name(spec.pool):
        remedy = f"{POOL_NAME_REMEDY}; '{DEFAULT_POOL}' is taken, and a node's name has no slash"
        raise InvalidInput(f"pool is {spec.pool!r}", field="pool", remedy=remedy)
    if spec.first_interface_index < 0:
        raise InvalidInput("first_interface_index is negative", field="first_interface_index", remedy="use 0 or more")
    marks = spec.watermarks
    for field in ("pre_allocate", "min_allocate", "max_allocate", "max_above_watermark"):
        if getattr(marks, field) < 0:
            raise InvalidInput(f"{field} is negative", field=f"watermarks.{field}", remedy="use 0 or more")
    tags = {
        "subnet_tags": spec.subnet_tags,
        "security_group_tags": spec.security_group_tags,
        "exclude_interface_tags": spec.exclude_interface_tags,
    }
    for field, filters in tags.items():
        if any(not key or key != key.strip() for key in filters):
            raise InvalidInput(f"{field} has an empty key", field=field, remedy="write each filter as key=value")
    if marks.max_allocate and marks.max_allocate < marks.min_allocate:
        raise InvalidInput(
            f"max_allocate {marks.max_allocate} is below min_allocate {marks.min_allocate}",
            field="watermarks.max_allocate",
            remedy="raise max_allocate, or lower min_allocate",
        )
