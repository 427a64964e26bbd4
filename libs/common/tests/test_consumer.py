import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pamqp.encode
import pytest
from aio_pika.abc import AbstractChannel
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.broker import declare_producer, sendable
from common.consumer import Consumer
from common.database import Database, new_id, utc_now
from common.events import Envelope, encode
from common.handlers import Handlers, Received
from common.health import Health
from common.settings import ServiceSettings
from common.testing import eventually


class Sold(BaseModel):
    number: int


POISON = 13


def handlers_of() -> Handlers:
    handlers = Handlers()

    @handlers.on("shop.item.sold.v1", Sold)
    async def sold(session: AsyncSession, event: Received[Sold]) -> None:
        await session.execute(
            text("INSERT INTO effects (event_id, note) VALUES (:id, :note)"),
            {"id": event.id, "note": str(event.data.number)},
        )
        if event.data.number == POISON:
            raise ValueError("thirteen")

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


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await declare_producer(channel, "shop")
        yield channel


@asynccontextmanager
async def consuming(settings: ServiceSettings, database: Database) -> AsyncIterator[Health]:
    stop, health = asyncio.Event(), Health()
    task = asyncio.ensure_future(Consumer(settings, database, handlers_of(), health).run(stop))
    try:
        await eventually(lambda: _ready(health))
        yield health
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def _ready(health: Health) -> bool:
    return (await health.ready())[0]


async def publish(channel: AbstractChannel, number: int, event_id: UUID | None = None, verb: str = "sold") -> UUID:
    data = json.dumps({"number": number})
    event = Envelope(event_id or new_id(), f"shop.item.{verb}.v1", "item", 1, utc_now(), data)
    body, properties = encode(event)
    message = aio_pika.Message(
        body, headers=properties.headers, message_id=properties.message_id, content_type=properties.content_type
    )
    await (await channel.get_exchange("shop.events")).publish(message, event.type)
    return event.id


async def effects(database: Database) -> list[str]:
    async with database.transaction() as session:
        return list((await session.execute(text("SELECT note FROM effects ORDER BY position"))).scalars())


async def parked(database: Database) -> list[Any]:
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT event_id, cause, attempts, body FROM parked_messages"))
        return list(rows)


async def test_an_event_delivered_many_times_has_its_effect_once(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        same = await publish(channel, 1)
        for _ in range(20):
            await publish(channel, 1, same)
        await publish(channel, 2)
        await eventually(lambda: _has(database, "2"))
    assert await effects(database) == ["1", "2"]


async def _has(database: Database, note: str) -> bool:
    return note in await effects(database)


async def test_a_failing_message_is_parked_with_its_cause_after_the_tiers_while_others_pass(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        poison = await publish(channel, POISON)
        for number in range(5):
            await publish(channel, number)
        await eventually(lambda: _has(database, "4"))
        ((event_id, cause, attempts, body),) = await eventually(lambda: parked(database))
    assert (event_id, cause, attempts) == (str(poison), "ValueError: thirteen", 4)
    assert json.loads(body) == {"number": POISON}
    assert sorted(await effects(database)) == ["0", "1", "2", "3", "4"]


async def test_events_that_wait_are_taken_together_each_once(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        pass  # it has declared its queue
    for number in range(20):
        event_id = await publish(channel, number % 10, verb="returned")
        await publish(channel, number % 10, event_id, verb="returned")
    async with consuming(settings, database):
        await eventually(lambda: _has_all(database, 20))
    assert sum(note.endswith("of 1") for note in await effects(database)) < 20


async def test_one_of_a_batch_that_fails_harms_only_itself(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        pass
    for number in (POISON - 1, POISON, POISON + 1):
        await publish(channel, number, verb="returned")
    async with consuming(settings, database):
        ((_, cause, attempts, _),) = await eventually(lambda: parked(database))
    assert (cause, attempts) == ("ValueError: thirteen", 4)
    assert await effects(database) == ["12 of 1", "14 of 1"]


@pytest.mark.parametrize(
    ("body", "content_type", "cause"),
    [
        (b"\xff\xfe", "application/json", "body is not JSON"),
        (b"[1]", "application/json", "not a JSON object"),
        (b"{}", "application/json", "attribute"),
        (b'{"specversion": "1.0", "id": 5}', "application/cloudevents+json", "attribute"),
        (b"", "text/plain", "body is not JSON"),
        (b'{"a":' * 100_000, "application/json", "body is not JSON"),
    ],
)
async def test_a_message_that_cannot_be_decoded_is_parked_at_once(
    settings: ServiceSettings,
    database: Database,
    channel: AbstractChannel,
    body: bytes,
    content_type: str,
    cause: str,
) -> None:
    async with consuming(settings, database):
        message = aio_pika.Message(body, content_type=content_type, headers={"odd": bytearray(b"\x00\xff")})
        await (await channel.get_exchange("shop.events")).publish(message, "shop.item.sold.v1")
        ((_, recorded, attempts, kept),) = await eventually(lambda: parked(database))
    assert cause in recorded
    assert attempts == 0
    assert kept == body


async def test_data_that_does_not_fit_the_reader_is_parked_at_once_without_its_values(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        body, properties = encode(Envelope(new_id(), "shop.item.sold.v1", "item", 1, utc_now(), '{"number": "secret"}'))
        message = aio_pika.Message(body, headers=properties.headers, content_type="application/json")
        await (await channel.get_exchange("shop.events")).publish(message, "shop.item.sold.v1")
        ((_, cause, _, _),) = await eventually(lambda: parked(database))
    assert cause == "data does not fit shop.item.sold.v1: number"


async def test_structured_mode_is_understood(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    event = {
        "specversion": "1.0",
        "id": str(new_id()),
        "source": "/shop",
        "type": "shop.item.sold.v1",
        "subject": "item",
        "time": "2026-01-01T00:00:00Z",
        "aggregateversion": 1,
        "data": {"number": 9, "unknown": "field"},
    }
    async with consuming(settings, database):
        message = aio_pika.Message(
            json.dumps(event).encode(), content_type="application/cloudevents+json; charset=utf-8"
        )
        await (await channel.get_exchange("shop.events")).publish(message, "shop.item.sold.v1")
        await eventually(lambda: _has(database, "9"))


async def test_an_outage_of_the_database_delays_messages_and_blames_none(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, postgres_server: str
) -> None:
    name = database.engine.url.database
    admin = await asyncpg.connect(postgres_server)
    try:
        async with consuming(settings, database) as health:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await eventually(lambda: _away(health))
            await publish(channel, 1)
            await publish(channel, POISON - 1)
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await eventually(lambda: _has(database, "12"), within=20)
        assert await effects(database) == ["1", "12"]
        assert await parked(database) == []
    finally:
        await admin.close()


async def _away(health: Health) -> bool:
    return not (await health.ready())[0]


async def test_what_was_not_begun_at_a_stop_goes_back_to_the_queue(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, 0)
        await eventually(lambda: _has(database, "0"))
    numbers = range(1000, 1400)
    for number in numbers:
        await publish(channel, number)
    async with consuming(settings, database):
        await eventually(lambda: _has(database, "1000"))
    async with consuming(settings, database):
        await eventually(lambda: _has_all(database, 401), within=20)
    assert sorted(map(int, await effects(database))) == [0, *numbers]


async def _has_all(database: Database, count: int) -> bool:
    return len(await effects(database)) == count


def test_headers_of_any_kind_can_be_sent_on_to_a_retry_queue() -> None:
    headers = sendable({"text": b"\xff", "deep": {"list": [b"\x00", 1, None]}})
    assert headers == {"text": bytearray(b"\xff"), "deep": {"list": [bytearray(b"\x00"), 1, None]}}
    pamqp.encode.field_table(headers)
