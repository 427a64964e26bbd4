"""What the feed of events and `updated_since` read by."""

from alembic import op

from common.db import feed_tables

revision = "0006"
down_revision = "0005"

_INVALID = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('ix_orders_updated_at') AND NOT indisvalid"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if op.get_bind().exec_driver_sql(_INVALID).scalar():
            op.execute("DROP INDEX CONCURRENTLY ix_orders_updated_at")
        op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_orders_updated_at ON orders (updated_at)")
    feed_tables.add_log_event_ids(op)
    feed_tables.create_stream_slots(op)


def downgrade() -> None:
    feed_tables.drop_stream_slots(op)
    feed_tables.drop_log_event_ids(op)
    op.drop_index("ix_orders_updated_at")
