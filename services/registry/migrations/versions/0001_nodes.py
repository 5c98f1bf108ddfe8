"""Nodes and their endpoints."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("leadership", sa.Column("name", sa.String, primary_key=True), _column("fence", sa.BigInteger))
    op.create_table(
        "nodes",
        sa.Column("name", sa.String, primary_key=True),
        _column("addresses", sa.JSON),
        _column("labels", sa.JSON),
        *_texts("cloud", "instance_id", "instance_type", "zone", "version", "state"),
        _column("registered_at", sa.Double),
        _column("heartbeat_at", sa.Double),
    )
    op.create_table(
        "endpoints",
        sa.Column("node", sa.String, sa.ForeignKey("nodes.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        *_texts("pod"),
        _column("addresses", sa.JSON),
        *_texts("mac", "interface_id"),
        _column("labels", sa.JSON),
        _column("created_at", sa.Double),
    )


def _column(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [_column(name, sa.String) for name in names]
