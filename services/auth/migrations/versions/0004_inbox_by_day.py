"""Divides the inbox by day."""

from alembic import op

from common.db import shared_tables

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    shared_tables.partition_inbox(op)


def downgrade() -> None:
    shared_tables.unite_inbox(op)
