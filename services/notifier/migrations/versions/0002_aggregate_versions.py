from alembic import op

from common import ddl

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    ddl.create_aggregate_versions(op)


def downgrade() -> None:
    ddl.drop_aggregate_versions(op)
