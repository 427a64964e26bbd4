"""Second factors, and addresses that wait for their confirmation."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_PURPOSES = "'verify_email', 'reset_password'"


def upgrade() -> None:
    op.add_column("users", sa.Column("pending_email", sa.Text))
    op.add_column("secret_links", sa.Column("email", sa.Text))
    op.drop_constraint("ck_secret_links_purpose", "secret_links")
    for table, name, condition in (
        ("users", "pending_email", "pending_email = lower(pending_email) AND char_length(pending_email) <= 254"),
        ("secret_links", "purpose", f"purpose IN ({_PURPOSES}, 'confirm_email', 'revert_email')"),
        ("secret_links", "email", f"(email IS NULL) = (purpose IN ({_PURPOSES}))"),
    ):
        op.create_check_constraint(f"ck_{table}_{name}", table, condition, postgresql_not_valid=True)
    op.create_table(
        "totp_authenticators",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("kek_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("last_step", sa.BigInteger),
        sa.PrimaryKeyConstraint("user_id", name="pk_totp_authenticators"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_totp_authenticators_user_id_users", ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "(confirmed_at IS NULL) = (last_step IS NULL) AND (confirmed_at IS NULL) = (last_used_at IS NULL)",
            name="ck_totp_authenticators_confirmed_at",
        ),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "digest", name="pk_recovery_codes"),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["totp_authenticators.user_id"],
            name="fk_recovery_codes_user_id_totp_authenticators",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("octet_length(digest) = 32", name="ck_recovery_codes_digest"),
    )
    # Outside the transaction, so that no table is locked while its rows are read.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE users VALIDATE CONSTRAINT ck_users_pending_email")
        op.execute("ALTER TABLE secret_links VALIDATE CONSTRAINT ck_secret_links_purpose")
        op.execute("ALTER TABLE secret_links VALIDATE CONSTRAINT ck_secret_links_email")
        op.create_index(
            "ix_secret_links_email",
            "secret_links",
            ["email"],
            postgresql_where=sa.text("purpose = 'revert_email'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_table("recovery_codes")
    op.drop_table("totp_authenticators")
    op.execute(f"DELETE FROM secret_links WHERE purpose NOT IN ({_PURPOSES})")  # noqa: S608 - a constant
    op.drop_constraint("ck_secret_links_purpose", "secret_links")
    op.create_check_constraint("ck_secret_links_purpose", "secret_links", f"purpose IN ({_PURPOSES})")
    op.drop_column("secret_links", "email")
    op.drop_column("users", "pending_email")
