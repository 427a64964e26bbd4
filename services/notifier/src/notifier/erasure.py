"""Deletes what is stored of an erased person."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_OWED_TO_CLIENT: Final = """EXISTS (
    SELECT FROM webhooks JOIN webhook_deliveries AS post ON post.webhook_id = webhooks.id
    WHERE webhooks.client_id IS NOT NULL AND webhooks.enabled
    AND post.event_id = notifications.id AND post.state IN ('pending', 'waiting')
)"""


async def delete_notifications(session: AsyncSession, user_id: UUID) -> None:
    """Deletes the notifications of an erased person, and their mails.

    Those that a client's webhook has yet to send stay, without the person's words.
    """
    await delete_chosen(session, "notifications.user_id = :user_id", {"user_id": user_id})


async def delete_chosen(session: AsyncSession, chosen: str, values: dict[str, Any]) -> None:
    words = "UPDATE notifications SET data = data || '{\"reason\": null}' WHERE data ->> 'reason' IS NOT NULL"
    mails = "DELETE FROM deliveries USING notifications WHERE notification_id = notifications.id"
    for statement in (words, mails, f"DELETE FROM notifications WHERE NOT {_OWED_TO_CLIENT}"):  # noqa: S608 - constants
        await session.execute(text(f"{statement} AND {chosen}"), values)


async def delete_parked(session: AsyncSession, user_id: UUID) -> None:
    """Deletes parked messages that contain the person's id, since they may hold the address."""
    await session.execute(
        text("DELETE FROM parked_messages WHERE position(:id IN body) > 0"), {"id": str(user_id).encode()}
    )
