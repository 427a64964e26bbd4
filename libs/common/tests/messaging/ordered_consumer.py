"""A process of a consumer that keeps the order of items: `python ordered_consumer.py DATABASE_URL AMQP_URL`."""

import asyncio
import signal
import sys
from typing import ClassVar

from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.runtime.health import Health
from common.settings import ServiceSettings


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Sold(BaseModel):
    number: int


handlers = EventHandlers(in_order=["shop.item"])


@handlers.on("shop.item.sold.v1", Sold)
async def sold(session: AsyncSession, event: Received[Sold]) -> None:
    values = {"note": f"{event.subject} {event.version}"}
    await session.execute(text("INSERT INTO effects (note) VALUES (:note)"), values)


async def main(database_url: str, amqp_url: str) -> None:
    settings = ShopSettings(
        database_url=SecretStr(database_url),
        amqp_url=SecretStr(amqp_url),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Database(settings) as database:
        await Consumer(settings, database, handlers, Health()).run(stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
