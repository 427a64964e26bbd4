"""The outbox in hash partitions, which several workers of the relay share."""

from alembic import op

from common.db import shared_tables

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    shared_tables.partition_outbox(op)


def downgrade() -> None:
    shared_tables.merge_outbox(op)
