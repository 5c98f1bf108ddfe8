"""What nodes say, checked before the service hears of it: a node may be broken, and must not break others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ipam.errors import InvalidInput
from ipam.model import NodeSpec, Usage
from ipam.overrides import TARGETS
from services.api.ipam import convert
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.watch.v1 import watch_pb2

# More than any instance can hold: 15 interfaces with 49 prefixes of 16 addresses are 11,760.
ADDRESSES_MAX: Final = 16_384
PENDING_PODS_MAX: Final = 65_536
ITEMS_MAX: Final = 256
TEXT_BYTES_MAX: Final = 512
_SHOWN_BYTES: Final = 64


def usage_from(message: pb.Usage) -> Usage:
    """Raises InvalidInput that names the first field which is wrong."""
    for field in ("in_use", "cooling", "ready", "refused"):
        _check_addresses(f"usage.{field}", getattr(message, field))
    if message.pending_pods > PENDING_PODS_MAX:
        raise InvalidInput(
            f"{message.pending_pods} pods wait",
            field="usage.pending_pods",
            remedy=f"a node has at most {PENDING_PODS_MAX} pods",
        )
    return convert.usage_from(message)


def node_spec_from(message: pb.NodeSpec, defaults: NodeSpec) -> NodeSpec:
    """Raises InvalidInput for what is missing, and for what is too much; what it means is checked by the domain."""
    for field in ("name", "pool", "instance_id", "instance_type"):
        _check_text(f"node.{field}", getattr(message, field))
    _check_policy(message.policy)
    for field in ("subnet_ids", "security_group_ids"):
        _check_items(f"node.{field}", getattr(message, field))
    for field in ("subnet_tags", "security_group_tags", "exclude_interface_tags", "labels"):
        table: Mapping[str, str] = getattr(message, field)
        _check_items(f"node.{field}", table)
        _check_items(f"node.{field}", table.values())
    return convert.node_spec_from(message, defaults)


def _check_policy(message: pb.Policy) -> None:
    said = {field.name for field, _ in message.ListFields()}
    targets = [name for name in TARGETS if name in said]
    if len(targets) > 1:
        raise InvalidInput(
            f"{' and '.join(targets)} are set", field=f"node.policy.{targets[1]}",
            remedy="a node has one target: leave the others out",
        )  # fmt: skip
    for field, value in message.ListFields():
        if value > ADDRESSES_MAX:
            raise InvalidInput(
                f"{field.name} is {value}", field=f"node.policy.{field.name}", remedy=f"use at most {ADDRESSES_MAX}"
            )


def check_labels(message: pb.NodeSpec) -> None:
    """Before rules are looked up by them. Raises InvalidInput."""
    _check_items("node.labels", message.labels)
    _check_items("node.labels", message.labels.values())


def errors_from(message: watch_pb2.Ack) -> dict[str, str]:
    """What the node could not bring into force, by key. Raises InvalidInput."""
    if len(message.errors) > ITEMS_MAX:
        raise _too_many("ack.errors", len(message.errors), ITEMS_MAX)
    for position, each in enumerate(message.errors):
        _check_text(f"ack.errors[{position}].key", each.key)
    return {each.key: each.reason[:TEXT_BYTES_MAX] for each in message.errors}


def _check_addresses(field: str, addresses: Collection[str]) -> None:
    if len(addresses) > ADDRESSES_MAX:
        raise _too_many(field, len(addresses), ADDRESSES_MAX)
    for position, address in enumerate(addresses):
        if not _is_address(address):
            raise InvalidInput(
                f"{_shown(address)} is not an IP address as this service writes it",
                field=f"{field}[{position}]",
                remedy='report addresses as they stand in the pool, like "10.0.0.7"',
            )


def _is_address(text: str) -> bool:
    """Whether it is the one spelling of an address that the pool uses, so that comparing texts compares addresses."""
    try:
        # A quarter of the time that ipaddress takes, and nodes report often.
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, text)) == text
    except (OSError, ValueError):
        pass
    try:
        return "%" not in text and str(ipaddress.IPv6Address(text)) == text
    except ValueError:
        return False


def _check_items(field: str, items: Iterable[str]) -> None:
    texts = list(items)
    if len(texts) > ITEMS_MAX:
        raise _too_many(field, len(texts), ITEMS_MAX)
    for text in texts:
        _check_text(field, text)


def _check_text(field: str, text: str) -> None:
    if len(text.encode()) > TEXT_BYTES_MAX or not text.isprintable():
        raise InvalidInput(
            f"{_shown(text)} has more than {TEXT_BYTES_MAX} bytes, or what can't be printed",
            field=field,
            remedy=f"use at most {TEXT_BYTES_MAX} bytes of text in one line",
        )


def _too_many(field: str, count: int, limit: int) -> InvalidInput:
    return InvalidInput(f"{field} has {count} entries", field=field, remedy=f"at most {limit} are accepted")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES] + "...")
