"""Indexes of 0009, the checks of 0008 and 0009, and the orders of deliveries that release 0.1 planned.

Alone in a revision, since nothing here is in a transaction: after a failure it is run again from its beginning.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_INDEXES = {
    "ix_webhook_deliveries_queue": "INDEX {} ON webhook_deliveries (webhook_id, is_retry, due_at)"
    " WHERE state = 'pending'",
    "uq_webhook_deliveries_pending_order": "UNIQUE INDEX {} ON webhook_deliveries (webhook_id, order_id)"
    " WHERE state = 'pending' AND order_id IS NOT NULL",
    "ix_webhook_deliveries_waiting_order": "INDEX {} ON webhook_deliveries"
    " (webhook_id, order_id, order_version, event_id) WHERE state = 'waiting'",
    "ix_webhook_deliveries_waiting": "INDEX {} ON webhook_deliveries (due_at) WHERE state = 'waiting'",
    "ix_webhook_deliveries_test": "INDEX {} ON webhook_deliveries (webhook_id)"
    " WHERE state = 'pending' AND order_id IS NULL",
    "ix_webhooks_disabled": "INDEX {} ON webhooks (id) WHERE NOT enabled",
    "ix_webhooks_client_id": "INDEX {} ON webhooks (client_id) WHERE client_id IS NOT NULL",
}
_CHECKS = {
    "notifications": ("kind",),
    "deliveries": ("state",),
    "webhooks": ("owner", "enabled", "disabled_reason"),
    "webhook_deliveries": ("waiting", "state", "settled"),
}
_INVALID = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")
_CHUNK = 1000
_VERSION = """CASE {}.type WHEN 'orders.order.placed.v1' THEN 1 WHEN 'orders.order.confirmed.v1' THEN 2
    WHEN 'orders.order.delivered.v1' THEN 4 ELSE 3 END"""
"""Of the order: one for each of its states, and a cancellation is the last."""
_GIVE_ORDERS = sa.text(f"""
    WITH chunk AS (
        SELECT webhook_id, event_id FROM webhook_deliveries
        WHERE (webhook_id, event_id) > (CAST(:webhook_id AS uuid), CAST(:event_id AS uuid))
        ORDER BY webhook_id, event_id LIMIT {_CHUNK}
    ), given AS (
        UPDATE webhook_deliveries AS delivery
        SET order_id = notification.order_id, order_version = {_VERSION.format("delivery")},
            is_retry = delivery.state = 'pending' AND delivery.attempts > 0,
            state = CASE WHEN delivery.state = 'pending' AND EXISTS (
                SELECT FROM notifications AS of_order
                JOIN webhook_deliveries AS other ON other.event_id = of_order.id
                WHERE of_order.order_id = notification.order_id AND of_order.id <> delivery.event_id
                AND other.webhook_id = delivery.webhook_id AND other.state = 'pending'
                AND (other.order_id IS NOT NULL OR {_VERSION.format("other")} < {_VERSION.format("delivery")})
            ) THEN 'waiting' ELSE delivery.state END
        FROM chunk JOIN notifications AS notification ON notification.id = chunk.event_id
        WHERE delivery.webhook_id = chunk.webhook_id AND delivery.event_id = chunk.event_id
        AND delivery.order_id IS NULL AND notification.order_id IS NOT NULL
    )
    SELECT webhook_id, event_id FROM chunk ORDER BY webhook_id DESC, event_id DESC LIMIT 1
""")  # noqa: S608 - constants of this file
"""Of an order's pending deliveries the first stays pending, and the others wait for it."""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        bind = op.get_bind()
        last: Any = ("00000000-0000-0000-0000-000000000000",) * 2
        while last:
            last = bind.execute(_GIVE_ORDERS, {"webhook_id": str(last[0]), "event_id": str(last[1])}).first()
        for name, definition in _INDEXES.items():
            if bind.execute(_INVALID, {"name": name}).scalar():
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            op.execute("CREATE " + definition.format(f"CONCURRENTLY IF NOT EXISTS {name}"))
        for table, checks in _CHECKS.items():
            for name in checks:
                op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_{name}")


def downgrade() -> None:
    for name in _INDEXES:
        op.drop_index(name)
