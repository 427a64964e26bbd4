"""Retention of notifications and deliveries."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, first_id_at
from common.db.retention import expired_before
from notifier.models import Notification, WebhookDelivery

NOTIFICATION_RETENTION: Final = timedelta(days=180)
"""Read or unread, with their deliveries. Longer than the 30 days of a replay, which would create them again."""
WEBHOOK_DELIVERY_RETENTION: Final = timedelta(days=30)
"""Counted from the time when the delivery was settled."""
BATCH: Final = 1_000
CLEANUP_INTERVAL: Final = 3600.0
"""Seconds."""


async def delete_notifications(session: AsyncSession, before: datetime) -> int:
    """Deletes up to `BATCH` that were created before that time. Returns how many. Never commits."""
    # Event ids are UUIDv7 and sort by time, so the primary key finds the expired ones.
    expired = (
        select(Notification.id)
        .where(Notification.id < first_id_at(before), Notification.created_at < before)
        .order_by(Notification.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    statement = delete(Notification).where(Notification.id.in_(expired)).returning(Notification.id)
    return len((await session.execute(statement, execution_options={"synchronize_session": False})).all())


async def delete_webhook_deliveries(session: AsyncSession, before: datetime) -> int:
    """Deletes up to `BATCH` that were settled before that time. Returns how many. Never commits."""
    expired = (
        select(WebhookDelivery.webhook_id, WebhookDelivery.event_id)
        .where(WebhookDelivery.settled_at < before)
        .order_by(WebhookDelivery.settled_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    statement = (
        delete(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == expired.c.webhook_id, WebhookDelivery.event_id == expired.c.event_id)
        .returning(WebhookDelivery.event_id)
    )
    return len((await session.execute(statement, execution_options={"synchronize_session": False})).all())


async def run_cleanup(database: Database) -> None:
    """Deletes what is past its retention, a day's rows of each kind at most, one transaction per batch."""
    by_age = select(Notification.created_at).limit(1)
    first, newest = by_age.order_by(Notification.id), by_age.order_by(Notification.id.desc())
    kinds = (
        (delete_notifications, NOTIFICATION_RETENTION, first),
        (delete_webhook_deliveries, WEBHOOK_DELIVERY_RETENTION, select(func.min(WebhookDelivery.settled_at))),
    )
    for delete_batch, kept, oldest in kinds:
        async with database.transaction() as session:
            before = await expired_before(session, kept, oldest=oldest, newest=newest)
        deleted = BATCH if before is not None else 0
        while deleted == BATCH and before is not None:
            async with database.transaction() as session:
                deleted = await delete_batch(session, before)
