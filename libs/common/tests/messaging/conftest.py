from collections.abc import AsyncIterator

import aio_pika
import pytest

from common.messaging.topology import declare_producer


@pytest.fixture
async def subscriber(amqp_url: str) -> AsyncIterator[list[aio_pika.abc.AbstractIncomingMessage]]:
    """What a subscriber to all events has received, in order of arrival."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await declare_producer(channel, "shop")
        queue = await channel.declare_queue("subscriber", exclusive=True)
        await queue.bind("shop.events", "#")
        received: list[aio_pika.abc.AbstractIncomingMessage] = []

        async def receive(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            received.append(message)

        await queue.consume(receive, no_ack=True)
        yield received
