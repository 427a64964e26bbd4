import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from common.db import shared_tables

revision = "0001"
down_revision = None

NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "contacts",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("erased", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("order_updates", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("welcome", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.PrimaryKeyConstraint("user_id", name="pk_contacts"),
        sa.CheckConstraint("version >= 0", name="ck_contacts_version"),
        sa.CheckConstraint("(name IS NULL) = (email IS NULL)", name="ck_contacts_whole"),
        sa.CheckConstraint("(email IS NOT NULL) = (version > 0 AND NOT erased)", name="ck_contacts_known"),
    )

    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.CheckConstraint(
            "kind IN ('welcome', 'order_placed', 'order_confirmed', 'order_shipped', 'order_delivered',"
            " 'order_cancelled', 'password_changed', 'verify_email', 'reset_password')",
            name="ck_notifications_kind",
        ),
        sa.CheckConstraint("(order_id IS NOT NULL) = starts_with(kind, 'order_')", name="ck_notifications_order_id"),
    )
    op.create_index(
        "uq_notifications_order_id_kind",
        "notifications",
        ["order_id", "kind"],
        unique=True,
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_index(
        "uq_notifications_welcome",
        "notifications",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'welcome'"),
    )
    op.create_index("ix_notifications_user_id", "notifications", ["user_id", "created_at", "id"])
    op.create_index(
        "ix_notifications_unread",
        "notifications",
        ["user_id", "created_at", "id"],
        postgresql_where=sa.text("read_at IS NULL"),
    )

    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("notification_id", sa.Uuid, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("cause", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("notification_id", "channel", name="uq_deliveries_notification_id_channel"),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["notifications.id"],
            name="fk_deliveries_notification_id_notifications",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("channel IN ('mail')", name="ck_deliveries_channel"),
        sa.CheckConstraint(
            "state IN ('waiting', 'pending', 'sent', 'failed', 'cancelled')", name="ck_deliveries_state"
        ),
        sa.CheckConstraint(
            "(settled_at IS NOT NULL) = (state IN ('sent', 'failed', 'cancelled'))", name="ck_deliveries_settled"
        ),
        sa.CheckConstraint("state <> 'failed' OR cause IS NOT NULL", name="ck_deliveries_cause"),
    )
    op.create_index("ix_deliveries_pending", "deliveries", ["due_at"], postgresql_where=sa.text("state = 'pending'"))
    op.create_index("ix_deliveries_waiting", "deliveries", ["due_at"], postgresql_where=sa.text("state = 'waiting'"))

    shared_tables.create_inbox(op)


def downgrade() -> None:
    shared_tables.drop_inbox(op)
    op.drop_table("deliveries")
    op.drop_table("notifications")
    op.drop_table("contacts")
