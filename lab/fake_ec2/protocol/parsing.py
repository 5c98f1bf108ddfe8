"""Form fields to parameters.

EC2 writes nested parameters as dotted keys ("TagSpecification.1.Tag.2.Key"); every list is flattened. The fields are
first folded into a tree by their dots, then read by the input shape, so that what no shape knows is found too.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from botocore.model import ListShape, Shape, StructureShape

from lab.fake_ec2.errors import ApiError, invalid, missing
from lab.fake_ec2.protocol.model import operation_model

_ENVELOPE: Final = frozenset({"Action", "Version", "AWSAccessKeyId", "Timestamp", "Expires"})

Tree = dict[str, Any]


def parse(action: str, fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The call's parameters by the names that SDKs use. Raises ApiError as EC2 answers."""
    tree: Tree = {}
    for key, value in fields:
        if key not in _ENVELOPE and not key.startswith(("Signature", "X-Amz-")):
            _put(tree, key, value)
    shape = operation_model(action).input_shape
    if not isinstance(shape, StructureShape):
        return {}
    return _structure(shape, tree, "")


def _put(tree: Tree, key: str, value: str) -> None:
    *path, last = key.split(".")
    for part in path:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise ApiError("InvalidParameterCombination", f"The parameter {key} is both a value and a structure")
        tree = below
    if isinstance(tree.get(last), dict):
        raise ApiError("InvalidParameterCombination", f"The parameter {key} is both a value and a structure")
    tree[last] = value


def wire_name(shape: Shape, member: str) -> str:
    """How a member is called in a request: its query name, or its location name with a capital."""
    serialization = shape.serialization
    if "queryName" in serialization:
        return str(serialization["queryName"])
    name = str(serialization.get("name", member))
    return name[0].upper() + name[1:]


def _structure(shape: StructureShape, value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(value, path, "It must be a structure.")
    left = dict(value)
    parsed: dict[str, Any] = {}
    for member, member_shape in shape.members.items():
        name = wire_name(member_shape, member)
        if name in left:
            parsed[member] = _value(member_shape, left.pop(name), f"{path}.{name}" if path else name)
        elif member in shape.required_members:
            raise missing(f"{path}.{name}" if path else name)
    if left:
        name = next(iter(left))
        raise ApiError("UnknownParameter", f"The parameter {f'{path}.{name}' if path else name} is not recognized")
    return parsed


def _list(shape: ListShape, value: object, path: str) -> list[Any]:
    if value == "":
        return []
    if not isinstance(value, dict):
        # One element may be sent without its number.
        value = {"1": value}
    numbers = sorted(value, key=lambda key: int(key) if key.isdecimal() else 0)
    for number in numbers:
        if not number.isdecimal() or int(number) < 1:
            raise ApiError("UnknownParameter", f"The parameter {path}.{number} is not recognized")
    return [_value(shape.member, value[number], f"{path}.{number}") for number in numbers]


def _value(shape: Shape, value: object, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, value, path)
    if isinstance(shape, ListShape):
        return _list(shape, value, path)
    if not isinstance(value, str):
        raise ApiError("UnknownParameter", f"The parameter {path}.{next(iter(value))} is not recognized")  # type: ignore[call-overload]
    try:
        return _SCALARS.get(shape.type_name, str)(value)
    except (ValueError, binascii.Error):
        raise invalid(value, path, f"It must be a {shape.type_name}.") from None


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _integer(text: str) -> int:
    number = int(text)
    if not -(2**31) <= number < 2**31:
        raise ValueError(text)
    return number


_SCALARS: Final[dict[str, Callable[[str], object]]] = {
    "boolean": _boolean,
    "integer": _integer,
    "long": int,
    "float": float,
    "double": float,
    "timestamp": datetime.fromisoformat,
    "blob": lambda text: base64.b64decode(text, validate=True),
}
