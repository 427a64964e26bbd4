from alembic import op

from common.db import shared_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """CREATE TABLE items (
    id uuid CONSTRAINT pk_items PRIMARY KEY,
    owner_id uuid NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    created_at timestamptz NOT NULL,
    processed_at timestamptz,
    CONSTRAINT ck_items_name CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_items_version CHECK (version >= 1)
)"""
    )
    shared_tables.create_outbox(op)
    shared_tables.partition_outbox(op)
    shared_tables.create_log_positions(op)
    shared_tables.create_unsendable(op)
    shared_tables.create_audit(op)
    shared_tables.create_inbox(op)


def downgrade() -> None:
    shared_tables.drop_inbox(op)
    shared_tables.drop_audit(op)
    shared_tables.drop_unsendable(op)
    shared_tables.drop_outbox(op)
    op.execute("DROP TABLE items")
