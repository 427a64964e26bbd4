"""A subscriber to orders' events: its own queue, effects that happen once, dead letters, history.

    pip install "aio-pika>=10.2"
    AMQP_URL=amqp://TEAM:PASSWORD@HOST:5672/ python subscriber.py [--history]

Stores the newest state of each order and the amount ordered per currency in SQLite (`DATABASE`, else `orders.db`).
With --history it first reads the whole stream. Stream and queue may overlap, since an event takes effect only once.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

URL = os.environ["AMQP_URL"]
TEAM = urlsplit(URL).username  # the prefix of our queues
TABLES = """
    CREATE TABLE IF NOT EXISTS inbox (event_id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS ordered (currency TEXT PRIMARY KEY, amount INTEGER NOT NULL);
"""


def process(database: sqlite3.Connection, message: AbstractIncomingMessage) -> None:
    """Stores the event's effect and its id in one transaction, which commits before the message is acknowledged.

    Raises LookupError, TypeError or ValueError if the message is invalid.
    """
    event_id, version = message.headers["cloudEvents_id"], message.headers["cloudEvents_aggregateversion"]
    state = str(message.headers["cloudEvents_type"]).split(".")[2]  # orders.order.placed.v1
    data = json.loads(message.body)
    with database:
        if database.execute("INSERT INTO inbox VALUES (?) ON CONFLICT DO NOTHING", [event_id]).rowcount == 0:
            return  # a repetition
        database.execute(
            "INSERT INTO orders VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE"
            " SET version = excluded.version, state = excluded.state WHERE excluded.version > orders.version",
            [data["order_id"], version, state],
        )
        if state == "placed":
            database.execute(
                "INSERT INTO ordered VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                [data["total"]["currency"], data["total"]["amount"]],
            )


def try_process(database: sqlite3.Connection, message: AbstractIncomingMessage) -> bool:
    """Returns False for an invalid message. Any other failure propagates; the unacknowledged message is redelivered."""
    try:
        process(database, message)
    except (LookupError, TypeError, ValueError) as error:
        print(f"invalid message: {message.message_id}: {error!r}", flush=True)
        return False
    return True


async def bind_inbound(channel: AbstractChannel) -> aio_pika.abc.AbstractQueue:
    """Binds our queue to the events that we want. The broker's operator created it; we may create none."""
    # Without checking it: RabbitMQ 4.2.6 and 4.3.0 refuse even a passive declaration to those who may create nothing.
    inbound = await channel.get_queue(f"{TEAM}.inbound", ensure=False)
    await inbound.bind("orders.events", "orders.order.#")
    await inbound.bind("orders.replay", f"{TEAM}.inbound")  # so that history can be sent to us
    return inbound


async def read_history(channel: AbstractChannel, database: sqlite3.Connection) -> None:
    """Reads the stream from its first event until it overlaps with our queue. Reading removes nothing from a stream."""
    overlapping = datetime.now(UTC) + timedelta(minutes=1)  # a margin for the producer's clock
    messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await channel.set_qos(prefetch_count=100)  # required for a stream
    stream = await channel.get_queue("orders.events.log", ensure=False)
    await stream.consume(messages.put, arguments={"x-stream-offset": "first"})
    timeout = 30.0  # for the first message; after that 5 s without a message mean the end of the stream
    with contextlib.suppress(TimeoutError):
        while True:
            message = await asyncio.wait_for(messages.get(), timeout)
            timeout = 5.0
            try_process(database, message)
            await message.ack()  # to receive more; streams do not support reject
            if message.timestamp is not None and message.timestamp > overlapping:
                break
    print("history is read", flush=True)


async def subscribe(database: sqlite3.Connection, *, history: bool) -> None:
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        inbound = await bind_inbound(channel)  # before the history, so that no event is missed
        if history:
            async with connection.channel() as reading:
                await read_history(reading, database)
        async with inbound.iterator() as messages:
            print("listening", flush=True)
            async for message in messages:
                if try_process(database, message):
                    await message.ack()
                else:
                    await message.reject(requeue=False)  # to the dead-letter exchange


async def main() -> None:
    database = sqlite3.connect(os.environ.get("DATABASE", "orders.db"))
    database.executescript(TABLES)
    while True:
        try:
            await subscribe(database, history="--history" in sys.argv)
        except (aio_pika.exceptions.AMQPConnectionError, OSError) as error:
            print(f"the broker is unavailable, will retry: {error!r}", flush=True)
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
