"""Webhooks that can be disabled and belong to clients; deliveries in the order of their order; attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_STATES_BEFORE = "state IN ('pending', 'sent', 'failed', 'cancelled')"
_STATES = "state IN ('waiting', 'pending', 'sent', 'failed', 'cancelled')"
_SETTLED_BEFORE = "(settled_at IS NOT NULL) = (state <> 'pending')"
_SETTLED = "(settled_at IS NOT NULL) = (state IN ('sent', 'failed', 'cancelled'))"
_NEW_CHECKS = {
    "webhooks": {
        "owner": "(user_id IS NULL) <> (client_id IS NULL)",
        "enabled": "enabled = (disabled_reason IS NULL)",
        "disabled_reason": "disabled_reason IN ('by_owner', 'failing', 'account_recovered')",
    },
    "webhook_deliveries": {"waiting": "state <> 'waiting' OR order_id IS NOT NULL"},
}
_WEBHOOK_COLUMNS = (
    "client_id",
    "enabled",
    "disabled_reason",
    "is_answering",
    "failing_since",
    "last_failed_at",
    "deleted_at",
)
_DELIVERY_COLUMNS = ("order_id", "order_version", "attempts_before", "is_retry", "answer")


def upgrade() -> None:
    op.alter_column("webhooks", "user_id", nullable=True)
    op.add_column("webhooks", sa.Column("client_id", sa.Text))
    op.add_column("webhooks", sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.text("true")))
    op.add_column("webhooks", sa.Column("disabled_reason", sa.Text))
    op.add_column("webhooks", sa.Column("is_answering", sa.Boolean, nullable=False, server_default=sa.text("false")))
    op.add_column("webhooks", sa.Column("failing_since", sa.DateTime(timezone=True)))
    op.add_column("webhooks", sa.Column("last_failed_at", sa.DateTime(timezone=True)))
    op.add_column("webhooks", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_table(
        "webhook_clients",
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("client_id", name="pk_webhook_clients"),
    )

    op.add_column("webhook_deliveries", sa.Column("order_id", sa.Uuid))
    op.add_column("webhook_deliveries", sa.Column("order_version", sa.Integer))
    op.add_column(
        "webhook_deliveries", sa.Column("attempts_before", sa.Integer, nullable=False, server_default=sa.text("0"))
    )
    op.add_column(
        "webhook_deliveries", sa.Column("is_retry", sa.Boolean, nullable=False, server_default=sa.text("false"))
    )
    op.add_column("webhook_deliveries", sa.Column("answer", sa.Text))
    _replace("state", _STATES)
    _replace("settled", _SETTLED)
    for table, checks in _NEW_CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition, postgresql_not_valid=True)
    op.create_table(
        "webhook_attempts",
        sa.Column("webhook_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("cause", sa.Text),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", "event_id", "number", name="pk_webhook_attempts"),
        sa.ForeignKeyConstraint(
            ["webhook_id", "event_id"],
            ["webhook_deliveries.webhook_id", "webhook_deliveries.event_id"],
            name="fk_webhook_attempts_webhook_id_webhook_deliveries",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_webhook_attempts_at", "webhook_attempts", ["at"])


def downgrade() -> None:
    op.drop_table("webhook_attempts")
    op.drop_table("webhook_clients")
    op.execute("DELETE FROM webhooks WHERE client_id IS NOT NULL OR deleted_at IS NOT NULL")
    for table, checks in _NEW_CHECKS.items():
        for name in checks:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.execute("UPDATE webhook_deliveries SET state = 'pending' WHERE state = 'waiting'")
    _replace("state", _STATES_BEFORE)
    _replace("settled", _SETTLED_BEFORE)
    for column in _DELIVERY_COLUMNS:
        op.drop_column("webhook_deliveries", column)
    for column in _WEBHOOK_COLUMNS:
        op.drop_column("webhooks", column)
    op.alter_column("webhooks", "user_id", nullable=False)


def _replace(name: str, condition: str) -> None:
    constraint = op.f(f"ck_webhook_deliveries_{name}")
    op.drop_constraint(constraint, "webhook_deliveries")
    op.create_check_constraint(constraint, "webhook_deliveries", condition, postgresql_not_valid=True)
