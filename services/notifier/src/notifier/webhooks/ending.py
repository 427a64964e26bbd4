"""Cancels what disabled webhooks have left, and deletes webhooks that were marked as deleted.

In chunks and transactions of its own, since a webhook may have hundreds of thousands of deliveries.
"""

from typing import Final

from sqlalchemy import text

from common.db.database import Database
from notifier.webhooks import planning

_CHUNK: Final = 1000
# Locked against being enabled, but not against events that are being planned for it.
_NEXT: Final = text(f"""
    SELECT id, deleted_at IS NOT NULL AS is_deleted FROM webhooks
    WHERE NOT enabled AND (deleted_at IS NOT NULL OR {planning.has_unsettled("webhooks.id")})
    ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")  # noqa: S608 - constants
_DELETE: Final = text("""
    DELETE FROM webhook_deliveries AS delivery USING (
        SELECT webhook_id, event_id FROM webhook_deliveries WHERE webhook_id = :id LIMIT :most FOR UPDATE SKIP LOCKED
    ) AS chunk
    WHERE delivery.webhook_id = chunk.webhook_id AND delivery.event_id = chunk.event_id
    RETURNING 1
""")


async def end_webhooks(database: Database) -> None:
    """Returns when nothing is left, or others have locked the rest."""
    while await _end_next(database):
        pass


async def _end_next(database: Database) -> bool:
    """Returns whether anything was done."""
    async with database.transaction() as session:
        row = (await session.execute(_NEXT)).one_or_none()
        if row is None:
            return False
        if not row.is_deleted:
            return await planning.cancel_deliveries(session, [row.id], limit=_CHUNK, skip_locked=True) > 0
        deleted = len((await session.scalars(_DELETE, {"id": row.id, "most": _CHUNK})).all())
        left = text("SELECT EXISTS (SELECT FROM webhook_deliveries WHERE webhook_id = :id)")
        if (await session.scalars(left, {"id": row.id})).one():
            return deleted > 0
        await session.execute(text("DELETE FROM webhooks WHERE id = :id"), {"id": row.id})
        return True
