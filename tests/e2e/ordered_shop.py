"""A service that keeps the order of items, for tests that strike its processes: `python ordered_shop.py relay`.

Each time an event is processed it writes the note `subject/version`. Until the file that SHOP_REPAIRED names exists, an
event with trouble in its handler is retried and then parked, and one with trouble in its data is parked at once.
"""

import os
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel, field_validator
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.cli.roles import RELAY, command_line
from common.messaging.event_handlers import EventHandlers, Received
from common.settings import ServiceSettings


def is_repaired() -> bool:
    return Path(os.environ["SHOP_REPAIRED"]).exists()


class Settings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Counted(BaseModel):
    trouble: str

    @field_validator("trouble")
    @classmethod
    def _check(cls, value: str) -> str:
        if value == "data" and not is_repaired():
            raise ValueError("not repaired")
        return value


handlers: Final = EventHandlers(in_order=["shop.item"])


@handlers.on("shop.item.counted.v1", Counted)
async def counted(session: AsyncSession, event: Received[Counted]) -> None:
    if event.data.trouble == "handler" and not is_repaired():
        raise RuntimeError("not repaired")
    effect = {"id": event.id, "note": f"{event.subject}/{event.version}"}
    await session.execute(text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"), effect)


if __name__ == "__main__":
    roles = {"relay": RELAY, "consume": "ordered_shop:handlers"}
    tests = Path(__file__).parents[2] / "libs" / "common" / "tests"
    command_line("shop", settings="ordered_shop:Settings", roles=roles, migrations=tests / "migrations")()
