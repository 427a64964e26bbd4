"""An outside subscriber: a queue of its own, bound to orders' events, and everything it received."""

import asyncio
import contextlib
import secrets

import aio_pika
from aio_pika.abc import AbstractConnection

PREFETCH = 500
HOUR_MS = 3_600_000
ERRORS = (aio_pika.exceptions.AMQPError, OSError, TimeoutError, asyncio.InvalidStateError)


class Subscriber:
    """`received` has (order, version) of each event in the order of arrival, repetitions included."""

    def __init__(self, amqp_url: str) -> None:
        self._url = amqp_url
        self._queue = f"chaos.{secrets.token_hex(4)}"
        self.received: list[tuple[str, int]] = []

    async def bind(self) -> None:
        """Declares the queue. From then on no event is missed."""
        async with await self._connect() as connection:
            await self._declare(connection)

    async def listen(self) -> None:
        """Receives until it is cancelled. Reconnects after an outage of the broker."""
        while True:
            with contextlib.suppress(*ERRORS):
                async with await self._connect() as connection:
                    await self._receive(connection)
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
        # It expires when this process was killed and cannot delete it.
        queue = await channel.declare_queue(
            self._queue, durable=True, arguments={"x-queue-type": "quorum", "x-expires": HOUR_MS}
        )
        await queue.bind("orders.events", "orders.order.#")
        return queue

    async def _receive(self, connection: AbstractConnection) -> None:
        queue = await self._declare(connection)
        async with queue.iterator() as messages:
            async for message in messages:
                headers = message.headers
                self.received.append(
                    (str(headers["cloudEvents_subject"]), int(str(headers["cloudEvents_aggregateversion"])))
                )
                await message.ack()
