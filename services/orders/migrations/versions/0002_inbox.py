from alembic import op

from common import ddl

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    ddl.create_inbox(op)


def downgrade() -> None:
    ddl.drop_inbox(op)
