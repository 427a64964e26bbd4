from alembic import op

from common.db import shared_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    shared_tables.create_outbox(op)
    shared_tables.partition_outbox(op)
    shared_tables.create_log_positions(op)
    shared_tables.create_unsendable(op)
    shared_tables.create_audit(op)
    shared_tables.create_inbox(op)
    shared_tables.create_aggregate_versions(op)
    shared_tables.create_deferred(op)
    op.execute("CREATE TABLE effects (position bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, note text)")


def downgrade() -> None:
    op.execute("DROP TABLE effects")
    shared_tables.drop_deferred(op)
    shared_tables.drop_aggregate_versions(op)
    shared_tables.drop_inbox(op)
    shared_tables.drop_audit(op)
    shared_tables.drop_unsendable(op)
    shared_tables.drop_outbox(op)
