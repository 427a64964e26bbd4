from alembic import op

from common.db import shared_tables

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    shared_tables.create_deferred(op)


def downgrade() -> None:
    shared_tables.drop_deferred(op)
