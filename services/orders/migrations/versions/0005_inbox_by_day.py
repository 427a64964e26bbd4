"""Divides the inbox by day."""

from alembic import op

from common.db import inbox_by_day

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    inbox_by_day.partition_inbox(op)


def downgrade() -> None:
    inbox_by_day.unite_inbox(op)
