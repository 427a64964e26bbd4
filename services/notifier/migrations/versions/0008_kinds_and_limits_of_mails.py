"""Adds kinds of notifications, and what limits the mails to addresses that nobody verified."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_KINDS_BEFORE = (
    "'welcome', 'order_placed', 'order_confirmed', 'order_shipped', 'order_delivered', 'order_cancelled',"
    " 'password_changed', 'verify_email', 'reset_password', 'email_changed'"
)
_KINDS = (
    f"{_KINDS_BEFORE}, 'new_sign_in', 'account_deactivated', 'account_reactivated', 'authenticator_changed',"
    " 'webhook_added', 'webhook_disabled', 'confirm_email', 'revert_email', 'email_reverted'"
)
_STATES_BEFORE = "'waiting', 'pending', 'sent', 'failed', 'cancelled'"
_STATES = "'waiting', 'held', 'pending', 'sent', 'failed', 'cancelled'"


def upgrade() -> None:
    _allow("notifications", "kind", _KINDS)
    _allow("deliveries", "state", _STATES)
    op.add_column("contacts", sa.Column("email_version", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("contacts", sa.Column("verified_version", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "unverified_mails",
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("address", sa.LargeBinary, nullable=False),
        sa.Column("mails", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("day", "address", name="pk_unverified_mails"),
        sa.CheckConstraint("mails > 0", name="ck_unverified_mails_mails"),
    )


def downgrade() -> None:
    op.drop_table("unverified_mails")
    op.drop_column("contacts", "verified_version")
    op.drop_column("contacts", "email_version")
    op.execute("DELETE FROM deliveries WHERE state = 'held'")
    op.execute(f"DELETE FROM notifications WHERE kind NOT IN ({_KINDS_BEFORE})")  # noqa: S608 - constants of this file
    _allow("deliveries", "state", _STATES_BEFORE)
    _allow("notifications", "kind", _KINDS_BEFORE)


def _allow(table: str, column: str, values: str) -> None:
    name = op.f(f"ck_{table}_{column}")
    op.drop_constraint(name, table)
    op.create_check_constraint(name, table, f"{column} IN ({values})", postgresql_not_valid=True)
