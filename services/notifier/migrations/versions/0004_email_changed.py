"""Adds the notification kind `email_changed`."""

from alembic import op

revision = "0004"
down_revision = "0003"

_TABLE, _NAME = "notifications", "ck_notifications_kind"
_BEFORE = (
    "'welcome', 'order_placed', 'order_confirmed', 'order_shipped', 'order_delivered', 'order_cancelled',"
    " 'password_changed', 'verify_email', 'reset_password'"
)


def upgrade() -> None:
    _allow(f"{_BEFORE}, 'email_changed'")


def downgrade() -> None:
    op.execute("DELETE FROM notifications WHERE kind = 'email_changed'")
    _allow(_BEFORE)


def _allow(kinds: str) -> None:
    op.execute(f"ALTER TABLE {_TABLE} DROP CONSTRAINT {_NAME}, ADD CONSTRAINT {_NAME} CHECK (kind IN ({kinds}))")
