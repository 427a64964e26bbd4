import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractChannel
from pamqp.commands import Basic
from prometheus_client import REGISTRY
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.broker import RETRY_TIERS, declare_producer, make_sendable
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


def nested(depth: int) -> bytes:
    """An AMQP table of tables."""
    table = b"\x00\x00\x00\x00"
    for _ in range(depth):
        field = b"\x01aF" + table
        table = len(field).to_bytes(4, "big") + field
    return table


class RawProperties(Basic.Properties):
    """Flags and properties as bytes, as no driver would write them."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.__dict__["raw"] = raw

    def marshal(self) -> bytes:
        return bytes(self.__dict__["raw"])


async def publish_raw(channel: AbstractChannel, properties: bytes, body: bytes) -> None:
    wire = await channel.get_underlay_channel()
    await wire.basic_publish(
        body, exchange="shop.events", routing_key="shop.item.sold.v1", properties=RawProperties(properties)
    )


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
    duplicates = counted("waybill_consumer_messages_total", outcome="duplicate")
    async with consuming(settings, database):
        same = await publish(channel, 1)
        for _ in range(20):
            await publish(channel, 1, same)
        await publish(channel, 2)
        await eventually(lambda: _has(database, "2"))
    assert await effects(database) == ["1", "2"]
    assert counted("waybill_consumer_messages_total", outcome="duplicate") == duplicates + 20


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def _has(database: Database, note: str) -> bool:
    return note in await effects(database)


async def test_a_failing_message_is_parked_with_its_cause_after_the_tiers_while_others_pass(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    parking = counted("waybill_consumer_messages_total", outcome="parked")
    retries = {tier: counted("waybill_consumer_retries_total", tier=tier) for tier in RETRY_TIERS}
    async with consuming(settings, database):
        poison = await publish(channel, POISON)
        for number in range(5):
            await publish(channel, number)
        await eventually(lambda: _has(database, "4"))
        ((event_id, cause, attempts, body),) = await eventually(lambda: parked(database))
    assert (event_id, cause, attempts) == (str(poison), "ValueError: thirteen", 4)
    assert json.loads(body) == {"number": POISON}
    assert counted("waybill_consumer_messages_total", outcome="parked") == parking + 1
    assert {tier: counted("waybill_consumer_retries_total", tier=tier) - count for tier, count in retries.items()} == (
        dict.fromkeys(RETRY_TIERS, 1)
    )
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


@pytest.mark.parametrize(
    "properties",
    [
        b"\x00\x00",  # none at all
        b"\x00\x80" + b"\x02\xff\xfe",  # a message id that is not UTF-8
        b"\x20\x00" + b"\x00\x00\x00\x04" + b"\x02\xff\xfeV",  # a header whose name is not UTF-8
        b"\x20\x00" + b"\x00\x00\x00\x0b" + b"\x01aT" + b"\x7f" * 8,  # a time past the year 9999
        b"\x20\x00" + nested(3000),
        b"\x20\x00" + b"\x00\x01\xd4\xc7" + b"\x01aS\x00\x01\xd4\xc0" + b"a" * 120_000,  # nearly a frame
    ],
    ids=["none", "message-id", "header-name", "time", "nested", "huge"],
)
async def test_a_message_with_hostile_properties_is_parked_while_others_pass(
    settings: ServiceSettings,
    database: Database,
    channel: AbstractChannel,
    properties: bytes,
) -> None:
    async with consuming(settings, database):
        await publish_raw(channel, properties, b'{"number": 1}')
        await publish(channel, 2)
        await eventually(lambda: _has(database, "2"))
        ((_, cause, attempts, body),) = await eventually(lambda: parked(database))
    assert cause
    assert (attempts, body) == (0, b'{"number": 1}')


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
    assert [*map(int, await effects(database))] == [0, *numbers], "in order, too"


async def _has_all(database: Database, count: int) -> bool:
    return len(await effects(database)) == count


async def test_a_failing_message_too_large_for_another_header_is_parked_and_keeps_nobody_waiting(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, POISON, headers={"large": "a" * 125_000})
        await publish(channel, 1)
        await eventually(lambda: _has(database, "1"))
        ((_, cause, attempts, _),) = await eventually(lambda: parked(database))
    assert (cause, attempts) == ("ValueError: thirteen", 1)


async def test_a_message_that_a_retry_queue_would_not_take_is_not_lost(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    """Published as mandatory: a queue that somebody deleted is noticed, and declared anew."""
    async with consuming(settings, database):
        await channel.queue_delete("shop.inbound.retry.5s")
        await publish(channel, POISON)
        ((_, cause, attempts, _),) = await eventually(lambda: parked(database), within=20)
    assert (cause, attempts) == ("ValueError: thirteen", 4)


async def test_a_consumer_whose_queue_was_deleted_is_not_ready_until_it_is_attached_again(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database) as health:
        await channel.queue_delete("shop.inbound")
        await eventually(lambda: _away(health))
        await eventually(lambda: _ready(health))
        await publish(channel, 1)
        await eventually(lambda: _has(database, "1"))


def test_properties_of_any_kind_can_be_sent_on_to_a_retry_queue() -> None:
    headers: Any = {"text": b"\xff", "deep": {"list": [b"\x00", 1, None]}, "CC": ["elsewhere"]}
    properties = Basic.Properties(headers=headers, user_id="somebody else")
    properties.delivery_mode = 7
    assert make_sendable(properties, {"more": 1})
    assert properties.headers == {
        "text": bytearray(b"\xff"),
        "deep": {"list": [bytearray(b"\x00"), 1, None]},
        "more": 1,
    }
    assert (properties.delivery_mode, properties.user_id) == (2, None)
    properties.validate()


def test_properties_that_cannot_be_sent_are_told_from_those_that_can() -> None:
    assert not make_sendable(Basic.Properties(headers={"large": "a" * 125_000}), {})
    odd: Any = {"odd": object()}
    assert not make_sendable(Basic.Properties(headers=odd), {})
