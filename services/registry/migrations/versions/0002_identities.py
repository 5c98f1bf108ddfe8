"""Numbers of sets of labels, and what nodes say of their pods' ranges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        # Of the labels: their text may be longer than an index takes.
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.UniqueConstraint("digest", name="identities_digest_key"),
    )
    op.add_column("endpoints", sa.Column("identity", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("nodes", sa.Column("pod_cidrs", sa.JSON, nullable=False, server_default="[]"))
    for name in ("routing_mode", "tunnel_address"):
        op.add_column("nodes", sa.Column(name, sa.String, nullable=False, server_default=""))
