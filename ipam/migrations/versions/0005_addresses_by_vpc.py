"""An address is known by its VPC and its text, so that VPCs of one account may have the same ranges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # Made anew: SQLite cannot change a primary key.
    op.execute(
        "CREATE TEMPORARY TABLE held AS SELECT interfaces.vpc_id, addresses.address, addresses.interface_id, "
        "addresses.position, addresses.state FROM addresses JOIN interfaces ON interfaces.id = addresses.interface_id"
    )
    op.drop_table("addresses")
    op.create_table(
        "addresses",
        sa.Column("vpc_id", sa.String, primary_key=True),
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("interface_id", sa.String, sa.ForeignKey("interfaces.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
    )
    op.create_index("ix_addresses_interface_id", "addresses", ["interface_id"])
    op.execute(
        "INSERT INTO addresses (vpc_id, address, interface_id, position, state) "
        "SELECT vpc_id, address, interface_id, position, state FROM held"
    )
    op.execute("DROP TABLE held")
