"""How long things are kept, and the sweep that ends it."""

import asyncio
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, utc_now
from notifier.models import Notification, WebhookDelivery

log = structlog.get_logger(__name__)

NOTIFICATIONS_KEPT: Final = timedelta(days=180)
"""Read or not, with their deliveries. Longer than any event may be replayed (30 days), which would tell it again."""
WEBHOOK_DELIVERIES_KEPT: Final = timedelta(days=30)
"""After they were settled."""
BATCH: Final = 1_000
_EVERY: Final = 300.0


def first_id_of(moment: datetime) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562 §5.7): ids of what came later are greater."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62)


async def forget_old(session: AsyncSession, now: datetime) -> int:
    """Removes a bounded batch of what was kept long enough; how many rows of the fuller of the two kinds."""
    # An event's id says when it happened: the primary key finds the old ones.
    cutoff = now - NOTIFICATIONS_KEPT
    notifications = (
        select(Notification.id)
        .where(Notification.id < first_id_of(cutoff), Notification.created_at < cutoff)
        .order_by(Notification.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    deliveries = (
        select(WebhookDelivery.webhook_id, WebhookDelivery.event_id)
        .where(WebhookDelivery.settled_at < now - WEBHOOK_DELIVERIES_KEPT)
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


async def keep_house(database: Database) -> None:
    """Until cancelled. Every deliverer does it, none waits for another, and nothing is urgent."""
    while True:
        try:
            async with database.transaction() as session:
                forgotten = await forget_old(session, utc_now())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round may succeed
            log.warning("nothing forgotten", error=type(error).__name__)
            forgotten = 0
        await asyncio.sleep(_EVERY if forgotten < BATCH else 1.0)
