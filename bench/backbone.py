"""The event backbone against its ceilings, measured in the same run: relay ÷ raw publish, consumer ÷ raw consume.

Needs the servers that the tests use (`common.testing` names the variables); `./dev bench` does not run
it yet. Rounds are interleaved and medians compared, so that a drifting machine harms neither.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
import asyncpg
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common import broker
from common.consumer import Consumer
from common.database import Database, driver_dsn, new_id, utc_now
from common.events import Envelope, encode, exchange_of
from common.handlers import Handlers, Received
from common.health import Health
from common.relay import relay
from common.server import server_loop
from common.settings import ServiceSettings
from common.testing import eventually, private_database, private_vhost

ROUNDS = 3
EVENTS = 5000
WINDOW = 500
TYPE = "shop.item.sold.v1"


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


class Sold(BaseModel):
    number: int


Run = Callable[[ShopSettings], Awaitable[float]]


async def raw_publish(settings: ShopSettings) -> float:
    """Confirmed publishes of the same driver, `WINDOW` at a time: what the relay could reach without a database."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await broker.wire(amqp, confirms=True)
        messages = [encode(Envelope(new_id(), TYPE, str(n), 1, utc_now(), '{"number": 1}')) for n in range(EVENTS)]
        started = time.perf_counter()
        for first in range(0, EVENTS, WINDOW):
            await asyncio.gather(
                *(
                    channel.basic_publish(
                        body, exchange=exchange_of("shop"), routing_key=TYPE, properties=properties, wait=False
                    )
                    for body, properties in messages[first : first + WINDOW]
                )
            )
        return EVENTS / (time.perf_counter() - started)


async def relay_catches_up(settings: ShopSettings) -> float:
    """The relay, from `EVENTS` waiting rows to an empty outbox; timed by the log's first and last commit."""
    connection = await asyncpg.connect(driver_dsn(settings.database_url.get_secret_value()))
    await connection.execute("TRUNCATE outbox, event_log")
    await connection.execute(
        "INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)"
        " SELECT gen_random_uuid(), $1, n::text, 1, now(), '{\"number\": 1}' FROM generate_series(1, $2::int) n",
        TYPE,
        EVENTS,
    )
    stop = asyncio.Event()
    running = asyncio.ensure_future(relay(settings, Health(), stop))
    moved = "SELECT count(*), extract(epoch FROM max(published_at) - min(published_at))::float8 FROM event_log"

    async def done() -> bool:
        return bool(await connection.fetchval("SELECT NOT EXISTS (SELECT FROM outbox)"))

    await eventually(done, within=60)
    stop.set()
    await running
    count, seconds = await connection.fetchrow(moved)
    await connection.close()
    # `published_at` is each batch's start: the time between first and last covers all batches but one.
    return float((count - WINDOW) / seconds)


async def _fill(settings: ShopSettings, queue: str) -> None:
    """Leaves exactly `EVENTS` messages in the queue, whatever its bindings brought before."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await broker.wire(amqp, confirms=True)
        await channel.queue_purge(queue)
        for first in range(0, EVENTS, WINDOW):
            messages = [
                encode(Envelope(new_id(), TYPE, str(n), 1, utc_now(), f'{{"number": {n}}}'))
                for n in range(first, first + WINDOW)
            ]
            await asyncio.gather(
                *(
                    channel.basic_publish(body, routing_key=queue, properties=properties, wait=False)
                    for body, properties in messages
                )
            )


async def raw_consume(settings: ShopSettings) -> float:
    """aio-pika, prefetch 50, an acknowledgement each, no effect."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "bench") as amqp:
        channel = await amqp.channel()
        await channel.set_qos(prefetch_count=50)
        queue = await channel.declare_queue("raw", durable=True, arguments={"x-queue-type": "quorum"})
        await _fill(settings, "raw")
        taken, done = 0, asyncio.Event()

        async def take(message: Any) -> None:
            nonlocal taken
            await message.ack()
            taken += 1
            if taken == EVENTS:
                done.set()

        started = time.perf_counter()
        await queue.consume(take)
        await done.wait()
        return EVENTS / (time.perf_counter() - started)


async def consumer_with_inbox(settings: ShopSettings) -> float:
    """The consumer: inbox row and one business insert per message, from a full queue to an empty one."""
    database = Database.open(settings)
    async with database.transaction() as session:
        await session.execute(text("TRUNCATE inbox, effects"))
    handlers, stop = Handlers(), asyncio.Event()
    taken, started = 0, 0.0

    @handlers.on_batch({TYPE: Sold})
    async def sold(session: AsyncSession, events: Sequence[Received[Sold]]) -> None:
        nonlocal taken, started
        started = started or time.perf_counter()
        await session.execute(
            text("INSERT INTO effects (event_id, note) SELECT unnest(CAST(:ids AS uuid[])), 'sold'"),
            {"ids": [event.id for event in events]},
        )
        taken += len(events)

    async def all_taken() -> bool:
        return taken >= EVENTS

    await _fill(settings, "shop.inbound")
    running = asyncio.ensure_future(Consumer(settings, database, handlers, Health()).run(stop))
    await eventually(all_taken, within=120)
    finished = time.perf_counter()
    stop.set()
    await running
    await database.close()
    return EVENTS / (finished - started)


async def main() -> None:
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
            await broker.declare_producer(channel, "shop")
            await broker.declare_consumer(channel, "shop", [])
        figures: dict[str, list[float]] = {}
        runs: list[Run] = [raw_publish, relay_catches_up, raw_consume, consumer_with_inbox]
        for _ in range(ROUNDS):
            for run in runs:
                figures.setdefault(run.__name__, []).append(await run(settings))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    for name, median in medians.items():
        print(f"{name:22} {median:8.0f}/s   (min {min(figures[name]):.0f}, max {max(figures[name]):.0f})")
    print(f"relay ÷ raw publish      {medians['relay_catches_up'] / medians['raw_publish']:.2f}   goal ≥ 0.90")
    print(f"consumer ÷ raw consume   {medians['consumer_with_inbox'] / medians['raw_consume']:.2f}   goal ≥ 1.1")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=server_loop) as runner:  # the roles' own
        runner.run(main())
