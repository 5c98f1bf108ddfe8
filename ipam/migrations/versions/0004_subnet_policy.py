"""Which of several subnets a node's new interfaces get."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("subnet_policy", sa.String, nullable=False, server_default="most-free"))
