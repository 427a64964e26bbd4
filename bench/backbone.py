"""The event backbone and its ceilings, for `relay` and `consumer`. Both sides use the same drivers."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
import asyncpg
from aiormq import Channel
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from bench.processors import Stopwatch, processes
from bench.table import Measured
from common.db.database import Database, new_id, utc_now
from common.db.driver import driver_dsn
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, encode, exchange_of
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.relay import relay
from common.messaging.relay_worker import PUBLISHED
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.plugin import eventually, private_database, private_vhost

WINDOW = 500
UNTIL_CANCELLED = 3600.0
"""Seconds: `Rounds.measure` has the limit."""
TYPE = "shop.item.sold.v1"
EFFECT = text("INSERT INTO effects (event_id, note) SELECT unnest(CAST(:ids AS uuid[])), 'sold'")
MIGRATIONS = Path(__file__).parents[1] / "libs/common/tests/migrations"


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Sold(BaseModel):
    number: int


async def raw_publish(settings: ShopSettings, events: int) -> Measured:
    """Confirmed publishes per second, `WINDOW` at a time: the limit of the relay without a database."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await broker.raw_channel(amqp, confirms=True)
        return await publish(channel, exchange_of("shop"), TYPE, events)


async def publish(channel: Channel, exchange: str, routing_key: str, events: int) -> dict[str, float]:
    """The rate as "", and the microseconds of processor time an event, by process."""
    messages = [encode(Envelope(new_id(), TYPE, str(n), 1, utc_now(), f'{{"number": {n}}}')) for n in range(events)]
    started, used = time.perf_counter(), servers()
    for first in range(0, events, WINDOW):
        await asyncio.gather(
            *(
                channel.basic_publish(
                    body, exchange=exchange, routing_key=routing_key, properties=properties, wait=False
                )
                for body, properties in messages[first : first + WINDOW]
            )
        )
    return {"": events / (time.perf_counter() - started), **used.per_event(events)}


def servers() -> Stopwatch:
    return Stopwatch({name: pid for name, pid in processes().items() if name in {"postgres", "rabbitmq"}})


async def relay_catches_up(
    settings: ShopSettings, events: int, *, empties: bool = True, started_after: int = 1
) -> Measured:
    """Events per second of the relay from `events` outbox rows to none, between the log's commits.

    Without those of the first `started_after` events. Also the microseconds of processor time an event of this process
    and of the servers. `empties` the table first.
    """
    connection = await asyncpg.connect(driver_dsn(settings.database_url.get_secret_value()))
    await connection.execute("TRUNCATE event_log" + ", outbox" * empties)
    await connection.execute(
        "INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)"
        " SELECT gen_random_uuid(), $1, n::text, 1, now(), '{\"number\": 1}' FROM generate_series(1, $2::int) n",
        TYPE,
        events,
    )
    before = published()
    async with relaying(settings):
        await until_published(before + started_after)
        began, used = published(), servers()
        await until_published(before + events)
        spent = used.per_event(int(published() - began) or 1)
    # A batch shares one `published_at`: the time from the first to the last covers all batches but one.
    count, seconds = await connection.fetchrow(
        "WITH begun AS (SELECT published_at FROM event_log ORDER BY position OFFSET $1),"
        " span AS (SELECT min(published_at) AS first, max(published_at) AS last FROM begun)"
        " SELECT count(*), extract(epoch FROM last - first)::float8 FROM event_log, span WHERE published_at > first"
        " GROUP BY first, last",
        started_after - 1,
    )
    await connection.close()
    return {"": float(count / seconds), **spent}


@asynccontextmanager
async def relaying(settings: ServiceSettings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.ensure_future(relay(settings, Health(), stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def until_published(count: float) -> None:
    async def is_reached() -> bool:  # by the metric: a query would scan the deleted rows
        return published() >= count

    await eventually(is_reached, within=UNTIL_CANCELLED)


def published() -> float:
    """Events that relays of this process have moved to the log. Of this counter alone: reading it from the registry
    measures all others, the process included.
    """
    return next(iter(PUBLISHED.collect())).samples[0].value


async def raw_consume(settings: ShopSettings, events: int) -> Measured:
    """Messages per second of aio-pika, with prefetch 50, one acknowledgement each and no effect."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await amqp.channel()
        await channel.set_qos(prefetch_count=50)
        queue = await channel.declare_queue("raw", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(topology.own_exchange("shop"), "raw")
        await publish(await broker.raw_channel(amqp, confirms=True), topology.own_exchange("shop"), "raw", events)
        received, done = 0, asyncio.Event()

        async def receive(message: Any) -> None:
            nonlocal received
            await message.ack()
            received += 1
            if received == events:
                done.set()

        started, used = time.perf_counter(), servers()
        await queue.consume(receive)
        await done.wait()
        return {"": events / (time.perf_counter() - started), **used.per_event(events)}


async def consumer_with_inbox(settings: ShopSettings, events: int) -> Measured:
    """Messages per second of the consumer, with an inbox row and one insert each, from full queues to empty ones."""
    handlers, processed, done = EventHandlers(), 0, asyncio.Event()
    started: float | None = None

    @handlers.on_batch({TYPE: Sold})
    async def sold(session: AsyncSession, batch: Sequence[Received[Sold]]) -> None:
        nonlocal processed, started
        started = started or time.perf_counter()
        await session.execute(EFFECT, {"ids": [event.id for event in batch]})
        processed += len(batch)
        if processed >= events:
            done.set()

    async with Database(settings) as database:
        async with database.transaction() as session:
            await session.execute(text("TRUNCATE inbox, effects"))
        async with consuming(settings, database, handlers):  # once, to declare its queues
            pass
        async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
            await publish(await broker.raw_channel(amqp, confirms=True), exchange_of("shop"), TYPE, events)
        used = servers()
        async with consuming(settings, database, handlers):
            await done.wait()
            rate, spent = events / (time.perf_counter() - (started or 0)), used.per_event(events)
    return {"": rate, **spent}


@asynccontextmanager
async def consuming(settings: ServiceSettings, database: Database, handlers: EventHandlers) -> AsyncIterator[None]:
    health, stop = Health(), asyncio.Event()
    running = asyncio.ensure_future(Consumer(settings, database, handlers, health).run(stop))

    async def attached() -> bool:
        return (await health.ready())[0]

    try:
        await eventually(attached, within=30)
        yield
    finally:
        stop.set()
        await running


def partitioned(settings: ShopSettings, setting: str, count: int) -> ShopSettings | None:
    """With that many partitions, or None if this version has no such setting."""
    if setting not in type(settings).model_fields:
        return settings if count == 1 else None
    return settings.model_copy(update={setting: count})


@asynccontextmanager
async def backbone() -> AsyncIterator[ShopSettings]:
    """A database and a virtual host, set up for a producer and a consumer."""
    async with private_database(MIGRATIONS) as database_url, private_vhost() as amqp_url:
        settings = ShopSettings(
            database_url=SecretStr(database_url),
            amqp_url=SecretStr(amqp_url),
            public_url="http://gateway.invalid",
            auth_url="http://auth.invalid",
        )
        async with await aio_pika.connect(amqp_url) as amqp:
            channel = await amqp.channel()
            await topology.declare_producer(channel, "shop")
            await topology.declare_consumer(amqp, "shop", [])
        yield settings
