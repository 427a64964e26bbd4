from alembic import op

from common import ddl

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    ddl.create_aggregate_versions(op)


def downgrade() -> None:
    ddl.drop_aggregate_versions(op)
