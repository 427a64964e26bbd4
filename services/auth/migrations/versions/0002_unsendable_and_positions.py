from alembic import op

from common.db import shared_tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    shared_tables.add_log_positions(op)
    shared_tables.create_unsendable(op)


def downgrade() -> None:
    shared_tables.drop_unsendable(op)
    shared_tables.drop_log_positions(op)
