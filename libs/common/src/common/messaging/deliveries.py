"""What a consumer receives from its queues: in batches, or one message at a time while one may kill the process.

RabbitMQ counts each delivery that is not acknowledged, and dead-letters a message at its limit. A process that dies
returns all that it received, so a message that kills its process would use up the deliveries of all others. Therefore
a message that was returned several times is received alone. It is not after a first return: a message that is returned
alone goes behind those that wait (RabbitMQ 3.10), which changes the order, and connections are lost often.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from aiormq import Channel
from aiormq.abc import DeliveredMessage

PREFETCH: Final = 300
BATCH: Final = 100
LONGEST_HOLD: Final = 900.0
"""Seconds after which unacknowledged messages go back to their queue: half of RabbitMQ's `consumer_timeout` (30 minutes
by default), at which it closes the channel."""
SUSPICIOUS: Final = 3
"""Returns of a message after which it may be what processes die of; far below the delivery limit."""


class HeldTooLong(ConnectionError):
    """The batch could not be processed within `LONGEST_HOLD`. Closing the connection returns its messages in order."""


class Deliveries:
    """Deliveries of `queue` and of its parked queue on one channel."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._received: asyncio.Queue[tuple[float, DeliveredMessage]] = asyncio.Queue()
        self._clock = asyncio.get_running_loop().time
        self._held_since = 0.0
        self._careful: str | None = f"{queue}, one by one"
        """The tag of the consumer with a prefetch of one, while there is one."""
        self.lost = asyncio.Event()
        """Set when the broker cancels a consumer or closes the channel."""
        channel.on_consumer_cancel_callbacks.add(lambda _: self.lost.set())
        channel.closing.add_done_callback(lambda _: self.lost.set())

    async def begin(self) -> None:
        await self._consume(self._queue, 1, self._careful)
        await self._consume(f"{self._queue}.parked", PREFETCH)  # its messages are only stored

    async def next_batch(self, stop: asyncio.Event) -> list[DeliveredMessage]:
        """Waits for a message and returns it with those already received, up to `BATCH`; [] on `stop` or `lost`."""
        first = asyncio.ensure_future(self._received.get())
        waits = [first, *(asyncio.ensure_future(event.wait()) for event in (stop, self.lost))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits[1:]:
                wait.cancel()
        if not first.done():
            first.cancel()
            return []
        self._held_since, message = first.result()
        batch = [message]
        if not _is_suspect(batch[0]):
            await self._receive_many()
        while len(batch) < BATCH and not self._received.empty():
            batch.append(self._received.get_nowait()[1])
        return batch

    def check_hold(self) -> None:
        """Raises `HeldTooLong` if the last batch's first message, the oldest of all, was received too long ago."""
        if self._clock() - self._held_since > LONGEST_HOLD:
            raise HeldTooLong

    async def acknowledge(self, batch: Sequence[DeliveredMessage]) -> None:
        """Acknowledges the batch and all before it."""
        await self._channel.basic_ack(batch[-1].delivery_tag or 0, multiple=True)

    async def _receive_many(self) -> None:
        """Replaces the consumer, because a consumer keeps its prefetch while a delivery is unacknowledged, even if one
        with the same tag follows.
        """
        if self._careful is not None:
            await self._channel.basic_cancel(self._careful)
            await self._consume(self._queue, PREFETCH)
            self._careful = None

    async def _consume(self, queue: str, prefetch: int, tag: str | None = None) -> None:
        await self._channel.basic_qos(prefetch_count=prefetch)
        await self._channel.basic_consume(queue, self._arrived, consumer_tag=tag or queue)

    async def _arrived(self, message: DeliveredMessage) -> None:
        self._received.put_nowait((self._clock(), message))


def _is_suspect(message: DeliveredMessage) -> bool:
    """Whether the broker says so: only a redelivered message has its count, else the header is the sender's."""
    count = (message.header.properties.headers or {}).get("x-delivery-count", 0)
    return bool(message.redelivered) and isinstance(count, int) and count >= SUSPICIOUS
