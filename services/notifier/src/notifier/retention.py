"""Retention of notifications and deliveries."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, first_id_at, utc_now
from notifier.models import Notification, WebhookDelivery

NOTIFICATION_RETENTION: Final = timedelta(days=180)
"""Read or unread, with their deliveries. Longer than the 30 days of a replay, which would create them again."""
WEBHOOK_DELIVERY_RETENTION: Final = timedelta(days=30)
"""Counted from the time when the delivery was settled."""
BATCH: Final = 1_000
CLEANUP_INTERVAL: Final = 300.0
"""Seconds."""


async def delete_expired(session: AsyncSession, now: datetime) -> int:
    """Deletes up to `BATCH` expired rows of each kind. Returns the larger of the two counts. Never commits."""
    # Event ids are UUIDv7 and sort by time, so the primary key finds the expired ones.
    cutoff = now - NOTIFICATION_RETENTION
    notifications = (
        select(Notification.id)
        .where(Notification.id < first_id_at(cutoff), Notification.created_at < cutoff)
        .order_by(Notification.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    deliveries = (
        select(WebhookDelivery.webhook_id, WebhookDelivery.event_id)
        .where(WebhookDelivery.settled_at < now - WEBHOOK_DELIVERY_RETENTION)
        .order_by(WebhookDelivery.settled_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    statements = (
        delete(Notification).where(Notification.id.in_(notifications)).returning(Notification.id),
        delete(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == deliveries.c.webhook_id, WebhookDelivery.event_id == deliveries.c.event_id)
        .returning(WebhookDelivery.event_id),
    )
    options = {"synchronize_session": False}
    return max([len((await session.execute(each, execution_options=options)).all()) for each in statements])


async def run_cleanup(database: Database) -> None:
    """Deletes everything that is past its retention, one transaction per batch."""
    deleted = BATCH
    while deleted == BATCH:
        async with database.transaction() as session:
            deleted = await delete_expired(session, utc_now())
