"""Retention of notifications and deliveries."""

from datetime import timedelta
from typing import Final, cast

from sqlalchemy import Table

from common.db.database import Database
from common.db.expired_rows import delete_expired
from notifier.models import Notification, UnverifiedMails
from notifier.webhooks.handlers import HISTORY
from notifier.webhooks.models import WebhookAttempt, WebhookDelivery

NOTIFICATION_RETENTION: Final = timedelta(days=180)
"""Read or unread, with their deliveries. Longer than the 30 days of a replay, which would create them again."""
WEBHOOK_DELIVERY_RETENTION: Final = HISTORY
"""Counted from the time when the delivery was settled. That of an attempt is counted from its own time."""
UNVERIFIED_MAILS_RETENTION: Final = timedelta(days=2)
"""Counts of mails to unverified addresses, which limit those of one day."""
CLEANUP_INTERVAL: Final = 3600.0
"""Seconds."""


async def run_cleanup(database: Database) -> None:
    """Deletes what is past its retention, at most a day's of each kind."""
    models = (Notification, WebhookDelivery, WebhookAttempt, UnverifiedMails)
    notifications, deliveries, attempts, unverified = (cast("Table", model.__table__).c for model in models)
    # Event ids are UUIDv7 and sort by time, so the primary key finds the expired ones.
    await delete_expired(database, notifications.created_at, NOTIFICATION_RETENTION, index=notifications.id)
    await delete_expired(database, deliveries.settled_at, WEBHOOK_DELIVERY_RETENTION)
    await delete_expired(database, attempts.at, WEBHOOK_DELIVERY_RETENTION)
    await delete_expired(database, unverified.day, UNVERIFIED_MAILS_RETENTION)
