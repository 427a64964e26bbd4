from alembic import op

from common import ddl

revision = "0001"
down_revision = None


def upgrade() -> None:
    ddl.create_outbox(op)
    ddl.create_inbox(op)
    ddl.create_aggregate_versions(op)
    op.execute("CREATE TABLE effects (position bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, note text)")


def downgrade() -> None:
    op.execute("DROP TABLE effects")
    ddl.drop_aggregate_versions(op)
    ddl.drop_inbox(op)
    ddl.drop_outbox(op)
