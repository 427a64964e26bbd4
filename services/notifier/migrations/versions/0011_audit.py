"""The audit trail of administrators' and operators' acts."""

from alembic import op

from common.db import shared_tables

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    shared_tables.create_audit(op)


def downgrade() -> None:
    shared_tables.drop_audit(op)
