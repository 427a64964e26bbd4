"""A consumer as a process that one message kills: `python fatal_shop.py consume`."""

import os
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.roles import command_line
from common.messaging.event_handlers import EventHandlers, Received
from common.settings import ServiceSettings

FATAL: Final = 13


class Settings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Sold(BaseModel):
    number: int


handlers: Final = EventHandlers()


@handlers.on("shop.item.sold.v1", Sold)
async def sold(session: AsyncSession, event: Received[Sold]) -> None:
    if event.data.number == FATAL:
        os._exit(1)
    note = {"id": event.id, "note": str(event.data.number)}
    await session.execute(text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"), note)


if __name__ == "__main__":
    roles, folder = {"consume": "fatal_shop:handlers"}, Path(__file__).parents[1] / "migrations"
    command_line("shop", settings="fatal_shop:Settings", roles=roles, migrations=folder)()
