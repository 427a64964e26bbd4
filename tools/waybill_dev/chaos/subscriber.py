"""Somebody else's subscriber: a queue of its own, bound to orders' events, and all that came through it."""

import asyncio
import contextlib
import secrets

import aio_pika
from aio_pika.abc import AbstractConnection

PREFETCH = 500
HOUR_MS = 3_600_000
ERRORS = (aio_pika.exceptions.AMQPError, OSError, TimeoutError, asyncio.InvalidStateError)


class Subscriber:
    """`received` holds (order, version) in the order of arrival, repetitions included."""

    def __init__(self, amqp_url: str) -> None:
        self._url = amqp_url
        self._queue = f"chaos.{secrets.token_hex(4)}"
        self.received: list[tuple[str, int]] = []

    async def bind(self) -> None:
        """From here on nothing is missed."""
        async with await self._connect() as connection:
            await self._declare(connection)

    async def listen(self) -> None:
        """Until it is cancelled; connects again when the broker was away."""
        while True:
            with contextlib.suppress(*ERRORS):
                async with await self._connect() as connection:
                    await self._take(connection)
            await asyncio.sleep(0.5)

    async def unbind(self) -> None:
        async with await self._connect() as connection:
            await (await connection.channel()).queue_delete(self._queue)

    async def _connect(self) -> AbstractConnection:
        async with asyncio.timeout(10):
            return await aio_pika.connect(self._url, client_properties={"connection_name": "chaos"}, heartbeat=10)

    async def _declare(self, connection: AbstractConnection) -> aio_pika.abc.AbstractQueue:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        # Should nobody be left to delete it, it goes by itself.
        queue = await channel.declare_queue(
            self._queue, durable=True, arguments={"x-queue-type": "quorum", "x-expires": HOUR_MS}
        )
        await queue.bind("orders.events", "orders.order.#")
        return queue

    async def _take(self, connection: AbstractConnection) -> None:
        queue = await self._declare(connection)
        async with queue.iterator() as messages:
            async for message in messages:
                headers = message.headers
                self.received.append(
                    (str(headers["cloudEvents_subject"]), int(str(headers["cloudEvents_aggregateversion"])))
                )
                await message.ack()
