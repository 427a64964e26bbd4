"""The events that orders consumes, each as a model of orders' own with only the fields it reads."""

from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from common.messaging.event_handlers import EventHandlers, Received
from orders.handlers import forget_customer

handlers: Final = EventHandlers()


class UserErased(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    user_id: UUID


@handlers.on("users.user.erased.v1", UserErased)
async def user_erased(session: AsyncSession, event: Received[UserErased]) -> None:
    await forget_customer(session, event.data.user_id)
