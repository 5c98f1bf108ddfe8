"""Pools, intents and leadership."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("leadership", _key("pool"), *_texts("holder"), _count("fence", sa.BigInteger), _time("until_at"))
    op.create_table(
        "nodes",
        _key("name"),
        *_texts("instance_id", "instance_type"),
        *_counts("pre_allocate", "min_allocate", "max_allocate", "max_above_watermark", "first_interface_index"),
        *_jsons("subnet_ids", "subnet_tags", "security_group_ids", "security_group_tags", "exclude_interface_tags"),
        _flag("delete_on_termination"),
        _flag("release_excess"),
        *_jsons("labels"),
    )
    op.create_table(
        "instances",
        _key("id"),
        *_texts("type", "zone", "vpc_id", "subnet_id"),
        *_jsons("tags", "security_group_ids"),
    )
    op.create_table(
        "interfaces",
        _key("id"),
        _owner("instance_id", "instances.id"),
        *_counts("position"),
        *_texts("mac", "subnet_id", "vpc_id", "zone", "primary_address", "attachment_id"),
        *_counts("device_index", "network_card"),
        *_jsons("security_group_ids", "tags"),
        _flag("delete_on_termination"),
        *_texts("status"),
        _time("created_at"),
    )
    op.create_index("ix_interfaces_instance_id", "interfaces", ["instance_id"])
    op.create_table(
        "addresses",
        _key("address"),
        _owner("interface_id", "interfaces.id"),
        *_counts("position"),
        *_texts("state"),
    )
    op.create_index("ix_addresses_interface_id", "addresses", ["interface_id"])
    op.create_table(
        "intents",
        _key("id"),
        *_texts("kind", "node"),
        *_counts("want"),
        *_jsons("addresses"),
        *_counts("attempts"),
        _time("created_at"),
        _time("not_before_at"),
        *_texts("last_error", "holder"),
        _count("fence", sa.BigInteger),
        _time("lease_until_at"),
    )
    op.create_table(
        "steps",
        _owner("intent_id", "intents.id", primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        *_texts("operation", "target"),
        *_jsons("arguments"),
        *_texts("client_token"),
        sa.Column("result", sa.JSON),
    )
    op.create_table(
        "dead_letters", _key("id"), *_jsons("intent"), *_texts("why"), _time("died_at"), *_counts("replays")
    )
    op.create_table(
        "limits",
        _key("instance_type"),
        *_counts("interfaces", "ipv4_per_interface", "ipv6_per_interface"),
        _flag("prefixes"),
        *_counts("network_cards"),
    )
    op.create_table(
        "subnets",
        _key("id"),
        *_texts("cidr", "zone", "vpc_id"),
        *_counts("free"),
        *_jsons("tags", "vpc_cidrs"),
    )
    op.create_table("security_groups", _key("id"), *_texts("vpc_id"), *_jsons("tags"))
    op.create_table("blocks", _key("subnet_id"), _time("until_at"), *_texts("why"))


def _key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.String, primary_key=True)


def _owner(name: str, of: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.String, sa.ForeignKey(of, ondelete="CASCADE"), nullable=False, **options)


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.String, nullable=False) for name in names]


def _count(name: str, kind: Any = sa.Integer) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _counts(*names: str) -> list[sa.Column[Any]]:
    return [_count(name) for name in names]


def _jsons(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.JSON, nullable=False) for name in names]


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _time(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double, nullable=False)
