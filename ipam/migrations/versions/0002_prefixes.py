"""Delegated prefixes, IPv6, public addresses, network cards, and policies of nodes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COLUMNS: dict[str, tuple[sa.Column[Any], ...]] = {
    "nodes": (
        sa.Column("prefix_delegation", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("ipv6", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("use_primary_address", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("public_address_tags", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("policy", sa.JSON, nullable=False, server_default="{}"),
    ),
    "interfaces": (
        sa.Column("prefixes", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("ipv6_addresses", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("ipv6_prefixes", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("public_address_id", sa.String, nullable=False, server_default=""),
    ),
    "limits": (
        sa.Column("addresses_per_instance", sa.Integer, nullable=False, server_default="0"),
        sa.Column("card_interfaces", sa.JSON, nullable=False, server_default="[]"),
    ),
    "subnets": (
        sa.Column("gateway", sa.String, nullable=False, server_default=""),
        sa.Column("ipv6_cidr", sa.String, nullable=False, server_default=""),
        sa.Column("free_prefixes", sa.Integer),
    ),
}


def upgrade() -> None:
    for table, columns in _COLUMNS.items():
        for column in columns:
            op.add_column(table, column)
