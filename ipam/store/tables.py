"""Tables of the pool store, as of the newest migration.

    nodes      leadership      limits   subnets   security_groups   blocks   dead_letters   memos
    instances ◀── interfaces ◀── addresses          intents ◀── steps

Columns are named after the fields of model.py whose values they hold. `addresses` has the members of delegated
prefixes, too, each with its state. Its primary key is what refuses an address of a VPC to a second interface, whatever
the code above it believes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
)

from ipam.model import AddressState, IntentKind, Operation, SubnetPolicy


class Texts(TypeDecorator[tuple[str, ...]]):
    """A tuple of texts, as a JSON list."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> Any:
        return list(value or ())

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...]:
        return tuple(value)


class Numbers(TypeDecorator[tuple[int, ...]]):
    """A tuple of whole numbers, as a JSON list."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[int] | None, dialect: Dialect) -> Any:
        return list(value or ())

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[int, ...]:
        return tuple(value)


class Names(TypeDecorator[Mapping[str, object]]):
    """A mapping, as a JSON object; None stays None."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, object] | None, dialect: Dialect) -> Any:
        return None if value is None else dict(value)


class Word(TypeDecorator[enum.StrEnum]):
    """A member of an enumeration, as its text."""

    impl = String
    cache_ok = True

    def __init__(self, members: type[enum.StrEnum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.members(value)


metadata: Final = MetaData()


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, String, nullable=False, **options)


def _number(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _time(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


def _texts(name: str) -> Column[tuple[str, ...]]:
    return Column(name, Texts, nullable=False)


def _names(name: str) -> Column[Mapping[str, object]]:
    return Column(name, Names, nullable=False)


leadership = Table(
    "leadership",
    metadata,
    _text("pool", primary_key=True),
    _text("holder"),
    Column("fence", BigInteger, nullable=False),
    _time("until_at"),
)

nodes = Table(
    "nodes",
    metadata,
    _text("name", primary_key=True),
    _text("instance_id"),
    _text("instance_type"),
    _number("pre_allocate"),
    _number("min_allocate"),
    _number("max_allocate"),
    _number("max_above_watermark"),
    _number("first_interface_index"),
    _texts("subnet_ids"),
    _names("subnet_tags"),
    Column("subnet_policy", Word(SubnetPolicy), nullable=False),
    _texts("security_group_ids"),
    _names("security_group_tags"),
    _names("exclude_interface_tags"),
    _flag("delete_on_termination"),
    _flag("release_excess"),
    _names("labels"),
    _flag("prefix_delegation"),
    _flag("ipv6"),
    _flag("use_primary_address"),
    _names("public_address_tags"),
    _names("policy"),
)

instances = Table(
    "instances",
    metadata,
    _text("id", primary_key=True),
    _text("type"),
    _text("zone"),
    _text("vpc_id"),
    _text("subnet_id"),
    _names("tags"),
    _texts("security_group_ids"),
)

interfaces = Table(
    "interfaces",
    metadata,
    _text("id", primary_key=True),
    Column("instance_id", String, ForeignKey("instances.id", ondelete="CASCADE"), nullable=False, index=True),
    _number("position"),
    _text("mac"),
    _text("subnet_id"),
    _text("vpc_id"),
    _text("zone"),
    _text("primary_address"),
    _text("attachment_id"),
    _number("device_index"),
    _number("network_card"),
    _texts("security_group_ids"),
    _names("tags"),
    _flag("delete_on_termination"),
    _text("status"),
    _time("created_at"),
    _texts("prefixes"),
    _texts("ipv6_addresses"),
    _texts("ipv6_prefixes"),
    _text("public_address_id"),
)

addresses = Table(
    "addresses",
    metadata,
    _text("vpc_id", primary_key=True),
    _text("address", primary_key=True),
    Column("interface_id", String, ForeignKey("interfaces.id", ondelete="CASCADE"), nullable=False, index=True),
    _number("position"),
    Column("state", Word(AddressState), nullable=False),
)

intents = Table(
    "intents",
    metadata,
    _text("id", primary_key=True),
    Column("kind", Word(IntentKind), nullable=False),
    _text("node"),
    _number("want"),
    _texts("addresses"),
    _number("attempts"),
    _time("created_at"),
    _time("not_before_at"),
    _text("last_error"),
    _text("holder"),
    Column("fence", BigInteger, nullable=False),
    _time("lease_until_at"),
)

steps = Table(
    "steps",
    metadata,
    Column("intent_id", String, ForeignKey("intents.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("operation", Word(Operation), nullable=False),
    _text("target"),
    _names("arguments"),
    _text("client_token"),
    Column("result", Names),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _text("id", primary_key=True),
    _names("intent"),
    _text("why"),
    _time("died_at"),
    _number("replays"),
)

limits = Table(
    "limits",
    metadata,
    _text("instance_type", primary_key=True),
    _number("interfaces"),
    _number("ipv4_per_interface"),
    _number("ipv6_per_interface"),
    _flag("prefixes"),
    _number("network_cards"),
    _number("addresses_per_instance"),
    Column("card_interfaces", Numbers, nullable=False),
)

subnets = Table(
    "subnets",
    metadata,
    _text("id", primary_key=True),
    _text("cidr"),
    _text("zone"),
    _text("vpc_id"),
    _number("free"),
    _names("tags"),
    _texts("vpc_cidrs"),
    _text("gateway"),
    _text("ipv6_cidr"),
    Column("free_prefixes", Integer),
)

security_groups = Table(
    "security_groups",
    metadata,
    _text("id", primary_key=True),
    _text("vpc_id"),
    _names("tags"),
)

blocks = Table(
    "blocks",
    metadata,
    _text("subnet_id", primary_key=True),
    _time("until_at"),
    _text("why"),
)


memos = Table(
    "memos",
    metadata,
    _text("name", primary_key=True),
    _names("body"),
)


def row(table: Table, fact: object, **more: object) -> dict[str, Any]:
    """The row of `fact`, whose fields and `more` have the names of the table's columns."""
    return {name: more[name] if name in more else getattr(fact, name) for name in table.c.keys()}  # noqa: SIM118


def rows(table: Table, facts: Iterable[object]) -> list[dict[str, Any]]:
    return [row(table, fact) for fact in facts]
