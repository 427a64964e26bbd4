"""A service that keeps the order of items, for tests that strike its processes: `python ordered_shop.py relay`.

Each time an event is processed it writes the note `subject/version`. One that is `fragile` fails until an effect with
the note `repaired` exists.
"""

from typing import ClassVar, Final

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.roles import RELAY, command_line
from common.messaging.event_handlers import EventHandlers, Received
from common.settings import ServiceSettings

REPAIRED: Final = "repaired"


class Settings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Counted(BaseModel):
    fragile: bool


handlers: Final = EventHandlers(in_order=["shop.item"])


@handlers.on("shop.item.counted.v1", Counted)
async def counted(session: AsyncSession, event: Received[Counted]) -> None:
    repaired = text("SELECT EXISTS (SELECT FROM effects WHERE note = :note)")
    if event.data.fragile and not await session.scalar(repaired, {"note": REPAIRED}):
        raise RuntimeError("fragile")
    effect = {"id": event.id, "note": f"{event.subject}/{event.version}"}
    await session.execute(text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"), effect)


if __name__ == "__main__":
    command_line("shop", settings="ordered_shop:Settings", roles={"relay": RELAY, "consume": "ordered_shop:handlers"})()
