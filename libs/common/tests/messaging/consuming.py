"""A consumer of the shop's events, a publisher of them, and queries for their effects and parked messages."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractChannel
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, new_id, utc_now
from common.messaging.cloudevents import Envelope, encode
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually


class Sold(BaseModel):
    number: int


POISON = 13
ENDLESS = 14
TOO_LARGE = 2**40
"""For the column that the handler writes it to."""


def make_handlers() -> EventHandlers:
    handlers = EventHandlers()

    @handlers.on("shop.item.sold.v1", Sold)
    async def sold(session: AsyncSession, event: Received[Sold]) -> None:
        await session.execute(
            text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"),
            {"id": event.id, "note": str(event.data.number)},
        )
        if event.data.number == POISON:
            raise ValueError("thirteen")
        if event.data.number == TOO_LARGE:
            await session.execute(text("SELECT CAST(:number AS integer)"), {"number": event.data.number})
        if event.data.number == ENDLESS:
            await session.execute(text("SELECT pg_sleep(60)"))

    @handlers.on_batch({"shop.item.returned.v1": Sold})
    async def returned(session: AsyncSession, events: Sequence[Received[Sold]]) -> None:
        for event in events:
            note = f"{event.data.number} of {len(events)}"
            await session.execute(
                text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"), {"id": event.id, "note": note}
            )
        if POISON in {event.data.number for event in events}:
            raise ValueError("thirteen")

    return handlers


@asynccontextmanager
async def consuming(settings: ServiceSettings, database: Database) -> AsyncIterator[Health]:
    stop, health = asyncio.Event(), Health()
    task = asyncio.ensure_future(Consumer(settings, database, make_handlers(), health).run(stop))
    try:
        await eventually(lambda: is_ready(health))
        yield health
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def is_ready(health: Health) -> bool:
    return (await health.ready())[0]


async def publish(
    channel: AbstractChannel,
    number: int,
    event_id: UUID | None = None,
    verb: str = "sold",
    headers: dict[str, Any] | None = None,
) -> UUID:
    data = json.dumps({"number": number})
    event = Envelope(event_id or new_id(), f"shop.item.{verb}.v1", "item", 1, utc_now(), data)
    body, properties = encode(event)
    message = aio_pika.Message(
        body,
        headers={**(properties.headers or {}), **(headers or {})},
        message_id=properties.message_id,
        content_type=properties.content_type,
    )
    await (await channel.get_exchange("shop.events")).publish(message, event.type)
    return event.id


async def effects(database: Database) -> list[str]:
    async with database.transaction() as session:
        return list((await session.execute(text("SELECT note FROM effects ORDER BY position"))).scalars())


async def parked(database: Database) -> list[Any]:
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT event_id, cause, attempts, body, properties FROM parked_messages"))
        return list(rows)


async def has_effect(database: Database, note: str) -> bool:
    return note in await effects(database)
