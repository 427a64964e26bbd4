import sqlalchemy as sa
from alembic import op

from common.db import shared_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("email_verified", sa.Boolean, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("age", sa.SmallInteger),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="ck_users_name"),
        sa.CheckConstraint("email = lower(email) AND char_length(email) <= 254", name="ck_users_email"),
        sa.CheckConstraint("age BETWEEN 1 AND 149", name="ck_users_age"),
        sa.CheckConstraint("role IN ('user', 'staff', 'admin')", name="ck_users_role"),
        sa.CheckConstraint("status IN ('active', 'deactivated')", name="ck_users_status"),
        sa.CheckConstraint("password_hash LIKE '$argon2id$%'", name="ck_users_password_hash"),
        sa.CheckConstraint("version >= 1", name="ck_users_version"),
    )
    op.create_index("ix_users_role", "users", ["role", "id"], postgresql_where=sa.text("role <> 'user'"))
    op.create_index("ix_users_status", "users", ["status", "id"], postgresql_where=sa.text("status <> 'active'"))

    op.create_table(
        "secret_links",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_secret_links"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_secret_links_user_id_users", ondelete="CASCADE"),
        sa.CheckConstraint("purpose IN ('verify_email', 'reset_password')", name="ck_secret_links_purpose"),
    )
    op.create_index("ix_secret_links_user_id", "secret_links", ["user_id"])
    op.create_index("ix_secret_links_requested_at", "secret_links", ["requested_at"])

    op.create_table(
        "secret_link_tokens",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("link_id", sa.Uuid, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_secret_link_tokens"),
        sa.ForeignKeyConstraint(
            ["link_id"], ["secret_links.id"], name="fk_secret_link_tokens_link_id_secret_links", ondelete="CASCADE"
        ),
        sa.CheckConstraint("octet_length(digest) = 32", name="ck_secret_link_tokens_digest"),
    )
    op.create_index("ix_secret_link_tokens_link_id", "secret_link_tokens", ["link_id"])

    # Rewritten at every sign-in: room in each page lets updates stay off the indexes.
    op.create_table(
        "login_backoffs",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("in_flight", sa.Integer, nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_login_backoffs"),
        sa.CheckConstraint("failures >= 0 AND in_flight >= 0", name="ck_login_backoffs_counts"),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_table(
        "login_buckets",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("level", sa.Double, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_login_buckets"),
        sa.CheckConstraint("level >= 0", name="ck_login_buckets_level"),
        postgresql_with={"fillfactor": "70"},
    )

    op.create_table(
        "known_networks",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("network", sa.Text, nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "network", name="pk_known_networks"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_known_networks_user_id_users", ondelete="CASCADE"),
    )
    op.create_index("ix_known_networks_last_login_at", "known_networks", ["last_login_at"])

    shared_tables.create_outbox(op)


def downgrade() -> None:
    shared_tables.drop_outbox(op)
    for table in (
        "known_networks",
        "login_buckets",
        "login_backoffs",
        "secret_link_tokens",
        "secret_links",
        "users",
    ):
        op.drop_table(table)
