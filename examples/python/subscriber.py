"""A subscriber to orders' events: a queue of its own, effects that happen once, dead letters, history.

    pip install "aio-pika>=10.2"
    AMQP_URL=amqp://TEAM:PASSWORD@HOST:5672/ python subscriber.py [--history]

Keeps the newest state of each order, and what was ordered for, in a database of its own (`DATABASE`, `orders.db`).
With --history it first reads all that the stream has. What it had already makes no difference, so both may overlap.
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
TEAM = urlsplit(URL).username  # all that we may declare begins with it
TABLES = """
    CREATE TABLE IF NOT EXISTS inbox (event_id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS ordered (currency TEXT PRIMARY KEY, amount INTEGER NOT NULL);
"""


def take(database: sqlite3.Connection, message: AbstractIncomingMessage) -> None:
    """The event's effect and the note that it was taken: one transaction, committed before the message is acknowledged.

    Raises LookupError, TypeError or ValueError when this is not an event that we understand.
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


def understood(database: sqlite3.Connection, message: AbstractIncomingMessage) -> bool:
    """Whether it could be taken. Any other failure ends the process: what is not acknowledged comes again."""
    try:
        take(database, message)
    except (LookupError, TypeError, ValueError) as error:
        print(f"not understood: {message.message_id}: {error!r}", flush=True)
        return False
    return True


async def declare_inbound(channel: AbstractChannel) -> aio_pika.abc.AbstractQueue:
    """Our queue, bound from now on, and before it the place for what we can't take."""
    dead = await channel.declare_exchange(f"{TEAM}.dead", "fanout", durable=True)
    parked = await channel.declare_queue(f"{TEAM}.parked", durable=True, arguments={"x-queue-type": "quorum"})
    await parked.bind(dead)
    inbound = await channel.declare_queue(
        f"{TEAM}.inbound",
        durable=True,
        arguments={"x-queue-type": "quorum", "x-dead-letter-exchange": f"{TEAM}.dead"},
    )
    await inbound.bind("orders.events", "orders.order.#")
    return inbound


async def read_history(channel: AbstractChannel, database: sqlite3.Connection) -> None:
    """The stream from its first event, up to what our queue gets as well. Reading removes nothing from a stream."""
    overlapping = datetime.now(UTC) + timedelta(minutes=1)  # our clock, and that of who wrote the event
    messages: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await channel.set_qos(prefetch_count=100)  # a stream asks for it
    stream = await channel.get_queue("orders.events.log", ensure=False)
    await stream.consume(messages.put, arguments={"x-stream-offset": "first"})
    patience = 30.0  # until the first of them; then 5 s of silence say that this was all
    with contextlib.suppress(TimeoutError):
        while True:
            message = await asyncio.wait_for(messages.get(), patience)
            patience = 5.0
            understood(database, message)
            await message.ack()  # for more; a stream knows no reject
            if message.timestamp is not None and message.timestamp > overlapping:
                break
    print("history is read", flush=True)


async def subscribe(database: sqlite3.Connection, *, history: bool) -> None:
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        inbound = await declare_inbound(channel)  # first: from here on nothing is missed
        if history:
            async with connection.channel() as reading:
                await read_history(reading, database)
        async with inbound.iterator() as messages:
            print("listening", flush=True)
            async for message in messages:
                if understood(database, message):
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
            print(f"the broker is away, trying again: {error!r}", flush=True)
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
