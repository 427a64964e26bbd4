"""The event backbone and its ceilings, for `relay` and `consumer`. Both sides use the same drivers."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
import asyncpg
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

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
TYPE = "shop.item.sold.v1"


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Sold(BaseModel):
    number: int


async def raw_publish(settings: ShopSettings, events: int) -> float:
    """Confirmed publishes per second, `WINDOW` at a time: the limit of the relay without a database."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await broker.raw_channel(amqp, confirms=True)
        messages = [encode(Envelope(new_id(), TYPE, str(n), 1, utc_now(), '{"number": 1}')) for n in range(events)]
        started = time.perf_counter()
        for first in range(0, events, WINDOW):
            await asyncio.gather(
                *(
                    channel.basic_publish(
                        body, exchange=exchange_of("shop"), routing_key=TYPE, properties=properties, wait=False
                    )
                    for body, properties in messages[first : first + WINDOW]
                )
            )
        return events / (time.perf_counter() - started)


async def relay_catches_up(settings: ShopSettings, events: int) -> float:
    """Events per second of the relay from `events` outbox rows to none, between the log's first and last commit."""
    connection = await asyncpg.connect(driver_dsn(settings.database_url.get_secret_value()))
    await connection.execute("TRUNCATE outbox, event_log")
    await connection.execute(
        "INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)"
        " SELECT gen_random_uuid(), $1, n::text, 1, now(), '{\"number\": 1}' FROM generate_series(1, $2::int) n",
        TYPE,
        events,
    )
    stop, before = asyncio.Event(), _published()
    running = asyncio.ensure_future(relay(settings, Health(), stop))
    moved = "SELECT count(*), extract(epoch FROM max(published_at) - min(published_at))::float8 FROM event_log"

    async def done() -> bool:  # by the metric: a query would scan the deleted rows
        return _published() - before >= events

    await eventually(done, within=60)
    stop.set()
    await running
    count, seconds = await connection.fetchrow(moved)
    await connection.close()
    # A batch shares one `published_at`: the time from the first to the last covers all batches but one.
    return float((count - WINDOW) / seconds)


def _published() -> float:
    """Of this counter alone: reading it from the registry measures all others, the process included."""
    return next(iter(PUBLISHED.collect())).samples[0].value


async def _fill(settings: ShopSettings, queue: str, events: int) -> None:
    """Leaves exactly `events` messages in the queue, whatever it contained before."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await broker.raw_channel(amqp, confirms=True)
        await channel.queue_purge(queue)
        for first in range(0, events, WINDOW):
            messages = [
                encode(Envelope(new_id(), TYPE, str(n), 1, utc_now(), f'{{"number": {n}}}'))
                for n in range(first, first + WINDOW)
            ]
            await asyncio.gather(
                *(
                    channel.basic_publish(
                        body,
                        exchange=topology.own_exchange("shop"),
                        routing_key=queue,
                        properties=properties,
                        wait=False,
                    )
                    for body, properties in messages
                )
            )


async def raw_consume(settings: ShopSettings, events: int) -> float:
    """Messages per second of aio-pika, with prefetch 50, one acknowledgement each and no effect."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await amqp.channel()
        await channel.set_qos(prefetch_count=50)
        queue = await channel.declare_queue("raw", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(topology.own_exchange("shop"), "raw")
        await _fill(settings, "raw", events)
        received, done = 0, asyncio.Event()

        async def receive(message: Any) -> None:
            nonlocal received
            await message.ack()
            received += 1
            if received == events:
                done.set()

        started = time.perf_counter()
        await queue.consume(receive)
        await done.wait()
        return events / (time.perf_counter() - started)


async def consumer_with_inbox(settings: ShopSettings, events: int) -> float:
    """Messages per second of the consumer, with an inbox row and one insert each, from a full queue to an empty one."""
    database = Database(settings)
    async with database.transaction() as session:
        await session.execute(text("TRUNCATE inbox, effects"))
    handlers, stop = EventHandlers(), asyncio.Event()
    processed, started = 0, 0.0

    @handlers.on_batch({TYPE: Sold})
    async def sold(session: AsyncSession, batch: Sequence[Received[Sold]]) -> None:
        nonlocal processed, started
        started = started or time.perf_counter()
        await session.execute(
            text("INSERT INTO effects (event_id, note) SELECT unnest(CAST(:ids AS uuid[])), 'sold'"),
            {"ids": [event.id for event in batch]},
        )
        processed += len(batch)

    async def all_processed() -> bool:
        return processed >= events

    await _fill(settings, "shop.inbound", events)
    running = asyncio.ensure_future(Consumer(settings, database, handlers, Health()).run(stop))
    await eventually(all_processed, within=120)
    finished = time.perf_counter()
    stop.set()
    await running
    await database.close()
    return events / (finished - started)


@asynccontextmanager
async def backbone() -> AsyncIterator[ShopSettings]:
    """A database and a virtual host, set up for a producer and a consumer."""
    migrations = Path(__file__).parents[1] / "libs/common/tests/migrations"
    async with private_database(migrations) as database_url, private_vhost() as amqp_url:
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
