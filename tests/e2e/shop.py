"""A minimal service that tests run as processes: `python shop.py relay`, `python shop.py consume`.

Each time event `version` of aggregate `subject` is processed, it writes the note `subject/version`.
"""

from pathlib import Path
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
    roles, tests = {"relay": RELAY, "consume": "shop:handlers"}, Path(__file__).parents[2] / "libs" / "common" / "tests"
    command_line("shop", settings="shop:Settings", roles=roles, migrations=tests / "migrations")()
