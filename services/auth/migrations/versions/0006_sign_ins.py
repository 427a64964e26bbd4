"""People's sign-ins, known devices, the audit trail, and keys of clients."""

from alembic import op

from common.db import shared_tables

revision = "0006"
down_revision = "0005"

_STATEMENTS = (
    """CREATE TABLE sign_ins (
    id uuid CONSTRAINT pk_sign_ins PRIMARY KEY,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    network text NOT NULL,
    device text NOT NULL,
    client_id text NOT NULL,
    outcome text NOT NULL,
    session_id uuid,
    CONSTRAINT ck_sign_ins_outcome CHECK (outcome IN ('succeeded', 'wrong', 'code_missing', 'throttled')),
    CONSTRAINT ck_sign_ins_session_id CHECK (session_id IS NULL OR outcome = 'succeeded')
)""",
    "CREATE INDEX ix_sign_ins_user_id ON sign_ins (user_id, id)",
    "CREATE INDEX ix_sign_ins_created_at ON sign_ins (created_at)",
    "ALTER TABLE clients ADD COLUMN jwks jsonb",
    """CREATE TABLE used_assertions (
    digest bytea CONSTRAINT pk_used_assertions PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    CONSTRAINT ck_used_assertions_digest CHECK (length(digest) = 32)
)""",
    "CREATE INDEX ix_used_assertions_expires_at ON used_assertions (expires_at)",
    "ALTER TABLE subjects ADD COLUMN first_sign_in_at timestamptz",
    """ALTER TABLE browser_sessions
    ADD COLUMN device text NOT NULL DEFAULT '',
    ADD COLUMN is_new_device boolean NOT NULL DEFAULT false""",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    shared_tables.create_audit(op)


def downgrade() -> None:
    shared_tables.drop_audit(op)
    op.execute("ALTER TABLE browser_sessions DROP COLUMN device, DROP COLUMN is_new_device")
    op.execute("ALTER TABLE subjects DROP COLUMN first_sign_in_at")
    op.execute("ALTER TABLE clients DROP COLUMN jwks")
    op.execute("DROP TABLE sign_ins, used_assertions")
