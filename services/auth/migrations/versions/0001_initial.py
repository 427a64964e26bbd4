"""Signing keys, clients, what is known of people, their sessions, and what was revoked."""

from alembic import op

from common.db import shared_tables

revision = "0001"
down_revision = None

_TABLES = (
    """CREATE TABLE signing_keys (
    kid text CONSTRAINT pk_signing_keys PRIMARY KEY,
    alg text NOT NULL,
    status text NOT NULL,
    jwk jsonb NOT NULL,
    sealed bytea,
    kek_id text,
    created_at timestamptz NOT NULL,
    changes_at timestamptz NOT NULL,
    version integer NOT NULL,
    CONSTRAINT ck_signing_keys_status CHECK (status IN ('pending', 'active', 'retiring')),
    CONSTRAINT ck_signing_keys_alg CHECK (alg IN ('ES256', 'RS256')),
    CONSTRAINT ck_signing_keys_private_part CHECK ((status = 'retiring') = (sealed IS NULL)),
    CONSTRAINT ck_signing_keys_kek_id CHECK ((sealed IS NULL) = (kek_id IS NULL))
)""",
    "CREATE UNIQUE INDEX uq_signing_keys_active ON signing_keys (status) WHERE status = 'active'",
    """CREATE TABLE clients (
    id text CONSTRAINT pk_clients PRIMARY KEY,
    name text NOT NULL,
    grant_types text[] NOT NULL,
    scopes text[] NOT NULL,
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    session_version integer NOT NULL,
    version integer NOT NULL,
    revoked_at timestamptz,
    deleted_at timestamptz,
    CONSTRAINT ck_clients_secret_hash CHECK (length(secret_hash) = 32),
    CONSTRAINT ck_clients_session_version CHECK (session_version >= 1)
)""",
    "CREATE INDEX ix_clients_created_at ON clients (created_at, id) WHERE deleted_at IS NULL",
    """CREATE TABLE subjects (
    user_id uuid CONSTRAINT pk_subjects PRIMARY KEY,
    version integer NOT NULL,
    status text NOT NULL,
    role text NOT NULL,
    session_version integer NOT NULL,
    min_session_version integer NOT NULL,
    spared_session_id uuid,
    spared_session_version integer,
    revoked_at timestamptz,
    event_version integer NOT NULL,
    CONSTRAINT ck_subjects_status CHECK (status IN ('active', 'deactivated', 'erased')),
    CONSTRAINT ck_subjects_session_version
        CHECK (1 <= min_session_version AND min_session_version <= session_version),
    CONSTRAINT ck_subjects_spared CHECK ((spared_session_id IS NULL) = (spared_session_version IS NULL))
)""",
    "CREATE INDEX ix_subjects_revoked_at ON subjects (revoked_at) WHERE revoked_at IS NOT NULL",
    """CREATE TABLE sessions (
    id uuid CONSTRAINT pk_sessions PRIMARY KEY,
    user_id uuid NOT NULL CONSTRAINT fk_sessions_user_id_subjects REFERENCES subjects (user_id),
    client_id text NOT NULL,
    scopes text[] NOT NULL,
    resources text[] NOT NULL,
    device text NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    idle_until timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    subject_version integer NOT NULL,
    place integer NOT NULL,
    nonce bytea NOT NULL,
    token_hash bytea NOT NULL,
    parent_hash bytea,
    rotated_at timestamptz,
    version integer NOT NULL,
    revoked_at timestamptz,
    revoke_reason text,
    CONSTRAINT ck_sessions_token_hash CHECK (length(token_hash) = 32),
    CONSTRAINT ck_sessions_place CHECK (place >= 1),
    CONSTRAINT ck_sessions_parent_hash CHECK ((place = 1) = (parent_hash IS NULL)),
    CONSTRAINT ck_sessions_rotated_at CHECK ((parent_hash IS NULL) = (rotated_at IS NULL)),
    CONSTRAINT ck_sessions_revoked CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL)),
    CONSTRAINT ck_sessions_idle_until CHECK (idle_until <= ends_at)
)""",
    "CREATE INDEX ix_sessions_user_id ON sessions (user_id, created_at, id) WHERE revoked_at IS NULL",
    "CREATE INDEX ix_sessions_revoked_at ON sessions (revoked_at) WHERE revoked_at IS NOT NULL",
    "CREATE INDEX ix_sessions_idle_until ON sessions (idle_until) WHERE revoked_at IS NULL",
    """CREATE TABLE revoked_tokens (
    sid uuid CONSTRAINT pk_revoked_tokens PRIMARY KEY,
    client_id text NOT NULL,
    revoked_at timestamptz NOT NULL
)""",
    "CREATE INDEX ix_revoked_tokens_revoked_at ON revoked_tokens (revoked_at)",
)


def upgrade() -> None:
    shared_tables.create_outbox(op)
    shared_tables.create_inbox(op)
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE revoked_tokens, sessions, subjects, clients, signing_keys")
    shared_tables.drop_inbox(op)
    shared_tables.drop_outbox(op)
