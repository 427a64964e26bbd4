"""What operators do with deliveries: list them, look at one, send them again. Mails and webhooks alike."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import notify_after_commit
from notifier.handlers import DELIVERIES_CHANNEL
from notifier.webhooks import handlers as webhook_handlers

LISTED: Final = ("id", "state", "channel", "cause", "kind", "attempts", "created_at", "order_id", "user_id")
CHANNELS: Final = ("mail", "webhook")
STATES: Final = ("waiting", "held", "pending", "sent", "failed", "cancelled")
_ALL: Final = """
    SELECT deliveries.id::text AS id, state, 'mail' AS channel, cause, kind, attempts, due_at, deliveries.created_at,
        settled_at, order_id, user_id, notification_id AS event_id, NULL::uuid AS webhook_id
    FROM deliveries JOIN notifications ON notifications.id = notification_id
    UNION ALL
    SELECT webhook_id || ':' || event_id, state, 'webhook', cause, type, attempts, due_at, posts.created_at,
        settled_at, coalesce(posts.order_id, notifications.order_id), webhooks.user_id, event_id, webhook_id
    FROM webhook_deliveries AS posts JOIN webhooks ON webhooks.id = webhook_id AND deleted_at IS NULL
    LEFT JOIN notifications ON notifications.id = event_id
"""
_CHOSEN: Final = f"""
    SELECT * FROM ({_ALL}) AS deliveries
    WHERE (CAST(:state AS text) IS NULL OR state = :state) AND (CAST(:channel AS text) IS NULL OR channel = :channel)
    AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
    ORDER BY created_at DESC, id DESC LIMIT :most
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class DeliveryId:
    """A mail's delivery has an id of its own. A webhook's is named by its webhook and its event: `webhook:event`."""

    last: UUID
    webhook: UUID | None = None

    @classmethod
    def parse(cls, text: str) -> "DeliveryId":
        """Raises ValueError."""
        webhook, colon, last = text.rpartition(":")
        return cls(UUID(last), UUID(webhook) if colon else None)

    def __str__(self) -> str:
        return str(self.last) if self.webhook is None else f"{self.webhook}:{self.last}"


async def deliveries(
    session: AsyncSession, *, state: str | None, channel: str | None, since: datetime | None, limit: int | None
) -> list[dict[str, Any]]:
    """The newest first."""
    values = {"state": state, "channel": channel, "since": since, "most": limit}
    return [dict(row) for row in (await session.execute(text(_CHOSEN), values)).mappings()]


async def delivery(session: AsyncSession, delivery_id: DeliveryId) -> dict[str, Any] | None:
    statement = text(f"SELECT * FROM ({_ALL}) AS deliveries WHERE id = :id")  # noqa: S608 - a constant
    row = (await session.execute(statement, {"id": str(delivery_id)})).mappings().one_or_none()
    return None if row is None else dict(row)


_MAILS: Final = text("""
    UPDATE deliveries SET state = 'pending', settled_at = NULL, cause = NULL, attempts = 0, due_at = created_at
    WHERE id = ANY (CAST(:ids AS uuid[])) AND settled_at IS NOT NULL RETURNING id
""")


async def resend(session: AsyncSession, delivery_ids: Iterable[DeliveryId]) -> set[DeliveryId]:
    """Makes settled deliveries due again, oldest first. Returns the ids of those that there were.

    Those of a disabled webhook are left out. A mail keeps its `Message-ID`, a webhook its `webhook-id`, so that
    receivers can detect what they have already.
    """
    chosen = list(delivery_ids)
    mails = await session.scalars(_MAILS, {"ids": [each.last for each in chosen if each.webhook is None]})
    resent = {DeliveryId(delivery_id) for delivery_id in mails}
    if resent:
        notify_after_commit(session, DELIVERIES_CHANNEL)
    of_webhooks = [(each.webhook, each.last) for each in chosen if each.webhook is not None]
    posts = await webhook_handlers.resend_settled(session, of_webhooks) if of_webhooks else set()
    return resent | {DeliveryId(event_id, webhook_id) for webhook_id, event_id in posts}
