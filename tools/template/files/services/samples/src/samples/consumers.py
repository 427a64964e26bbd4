"""The events that samples processes, each as its own narrow copy."""

from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.event_handlers import EventHandlers, Received
from samples.handlers import item_was_created

handlers: Final = EventHandlers()


class CreatedItem(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    item_id: UUID


@handlers.on("samples.item.created.v1", CreatedItem)
async def item_created(session: AsyncSession, event: Received[CreatedItem]) -> None:
    await item_was_created(session, event.data.item_id)
