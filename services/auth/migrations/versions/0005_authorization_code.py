"""Redirect URIs of clients, browser sessions, authorization codes, and what people allow clients."""

from alembic import op

revision = "0005"
down_revision = "0004"

_STATEMENTS = (
    """ALTER TABLE clients
    ADD COLUMN redirect_uris text[] NOT NULL DEFAULT '{}',
    ADD COLUMN post_logout_redirect_uris text[] NOT NULL DEFAULT '{}',
    ADD COLUMN public boolean NOT NULL DEFAULT false,
    ADD COLUMN previous_secret_hash bytea,
    ADD COLUMN previous_secret_until timestamptz""",
    """ALTER TABLE clients ADD CONSTRAINT ck_clients_previous_secret
    CHECK ((previous_secret_hash IS NULL) = (previous_secret_until IS NULL)) NOT VALID""",
    """ALTER TABLE sessions
    ADD COLUMN amr text[] NOT NULL DEFAULT '{pwd}',
    ADD COLUMN authenticated_at timestamptz,
    ADD COLUMN browser_session_id uuid""",
    """CREATE TABLE browser_sessions (
    id uuid CONSTRAINT pk_browser_sessions PRIMARY KEY,
    cookie_hash bytea NOT NULL CONSTRAINT uq_browser_sessions_cookie_hash UNIQUE,
    user_id uuid NOT NULL CONSTRAINT fk_browser_sessions_user_id_subjects REFERENCES subjects (user_id),
    subject_version integer NOT NULL,
    amr text[] NOT NULL,
    authenticated_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    CONSTRAINT ck_browser_sessions_cookie_hash CHECK (length(cookie_hash) = 32)
)""",
    "CREATE INDEX ix_browser_sessions_user_id ON browser_sessions (user_id)",
    "CREATE INDEX ix_browser_sessions_ends_at ON browser_sessions (ends_at)",
    """CREATE TABLE authorization_codes (
    code_hash bytea CONSTRAINT pk_authorization_codes PRIMARY KEY,
    client_id text NOT NULL,
    user_id uuid NOT NULL CONSTRAINT fk_authorization_codes_user_id_subjects REFERENCES subjects (user_id),
    browser_session_id uuid NOT NULL,
    redirect_uri text NOT NULL,
    scopes text[] NOT NULL,
    resources text[] NOT NULL,
    code_challenge text NOT NULL,
    nonce text,
    expires_at timestamptz NOT NULL,
    session_id uuid,
    CONSTRAINT ck_authorization_codes_code_hash CHECK (length(code_hash) = 32)
)""",
    "CREATE INDEX ix_authorization_codes_expires_at ON authorization_codes (expires_at)",
    """CREATE TABLE consents (
    user_id uuid NOT NULL CONSTRAINT fk_consents_user_id_subjects REFERENCES subjects (user_id),
    client_id text NOT NULL CONSTRAINT fk_consents_client_id_clients REFERENCES clients (id) ON DELETE CASCADE,
    scopes text[] NOT NULL,
    granted_at timestamptz NOT NULL,
    CONSTRAINT pk_consents PRIMARY KEY (user_id, client_id)
)""",
    "CREATE INDEX ix_consents_client_id ON consents (client_id)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    op.execute("ALTER TABLE clients VALIDATE CONSTRAINT ck_clients_previous_secret")


def downgrade() -> None:
    op.execute("DROP TABLE consents, authorization_codes, browser_sessions")
    op.execute("ALTER TABLE sessions DROP COLUMN amr, DROP COLUMN authenticated_at, DROP COLUMN browser_session_id")
    op.execute(
        "ALTER TABLE clients DROP COLUMN redirect_uris, DROP COLUMN post_logout_redirect_uris, DROP COLUMN public, "
        "DROP COLUMN previous_secret_hash, DROP COLUMN previous_secret_until"
    )
