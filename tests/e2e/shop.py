"""A service as small as one can be, run by tests as processes of its own: `python shop.py relay`, `… consume`.

It counts: event `version` of aggregate `subject` leaves the note `subject/version` each time it has an effect.
"""

from typing import ClassVar, Final

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.roles import RELAY, command_line
from common.messaging.event_handlers import EventHandlers, Received
from common.settings import ServiceSettings


class Settings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Counted(BaseModel):
    number: int


handlers: Final = EventHandlers()


@handlers.on("shop.item.counted.v1", Counted)
async def counted(session: AsyncSession, event: Received[Counted]) -> None:
    note = {"id": event.id, "note": f"{event.subject}/{event.version}"}
    await session.execute(text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"), note)


if __name__ == "__main__":
    command_line("shop", settings="shop:Settings", roles={"relay": RELAY, "consume": "shop:handlers"})()
