"""Every select and update of samples."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from common.errors import NotFound
from samples.models import Item


async def item(session: AsyncSession, item_id: UUID, *, owner_id: UUID) -> Item:
    """Raises `NotFound`, also for another owner's item."""
    found = await session.scalar(select(Item).where(Item.id == item_id, Item.owner_id == owner_id))
    if found is None:
        raise NotFound("There is no such item.")
    return found


async def mark_processed(session: AsyncSession, item_id: UUID, now: datetime) -> None:
    await session.execute(update(Item).where(Item.id == item_id).values(processed_at=now))
