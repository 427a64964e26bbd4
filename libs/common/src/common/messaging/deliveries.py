"""What a process receives from one queue: in batches, or one message at a time while one may kill the process.

RabbitMQ counts each delivery that is not acknowledged, and dead-letters a message at its limit. A process that dies
returns all that it received, so a message that kills its process would use up the deliveries of all others. Therefore
a message that was returned several times is received alone. It is not after a first return: a message that is returned
alone goes behind those that wait (RabbitMQ 3.10), which changes the order, and connections are lost often.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage

from common.messaging.broker import raw_channel

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
    """Deliveries of one queue, on a channel of their own.

    A queue with a single active consumer sends nothing to this process while another one is active.
    """

    def __init__(
        self, connection: AbstractConnection, queue: str, lost: asyncio.Event, *, is_careful: bool = True
    ) -> None:
        """`lost` is set when the broker cancels the consumer or closes the channel."""
        self.queue = queue
        self.lost = lost
        self.is_wanted = asyncio.Event()
        """Set to have the queue handed over to a process that waits for it."""
        self.is_active = False
        """Whether something has arrived since this process last went to the end of the queue's line."""
        self._connection = connection
        self._starts_careful = is_careful
        self._is_careful = False
        """Whether the current consumer has a prefetch of one."""
        self._channel: Channel
        self._end: asyncio.Future[Any]
        self._received: asyncio.Queue[tuple[float, DeliveredMessage]]
        self._clock = asyncio.get_running_loop().time
        self._held_since = 0.0

    async def begin(self) -> None:
        self._channel = await raw_channel(self._connection, confirms=False)
        self._channel.on_consumer_cancel_callbacks.add(self._lose)
        self._end = self._channel.closing  # each access makes another observer of the channel's end
        self._end.add_done_callback(self._lose)
        self._received = asyncio.Queue()
        self.is_active, self._is_careful = False, self._starts_careful
        self.is_wanted.clear()
        await self._consume(1 if self._is_careful else PREFETCH, self._tag(is_careful=self._is_careful))

    async def end(self) -> None:
        """Returns what was not acknowledged to the queue, in order."""
        self._end.remove_done_callback(self._lose)
        await self._channel.close()

    async def hand_over(self) -> None:
        """Goes to the end of the queue's line. What was received and not acknowledged returns to the queue, in order.

        (Messages returned by nack come out in another order, and a cancelled consumer keeps them while the next one
        receives later ones.)
        """
        channel, end = self._channel, self._end
        await self.begin()
        end.remove_done_callback(self._lose)
        await channel.close()

    async def next_batch(self, stop: asyncio.Event, *, within: float | None = None) -> list[DeliveredMessage]:
        """Waits for a message and returns it with those already received, up to `BATCH`.

        Returns none on `stop`, `lost` or `is_wanted`, or after `within` seconds.
        """
        batch: list[DeliveredMessage] = []
        first = asyncio.ensure_future(self._received.get())
        waits = [first, *(asyncio.ensure_future(event.wait()) for event in (stop, self.lost, self.is_wanted))]
        try:
            await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits[1:]:
                wait.cancel()
        if self.is_wanted.is_set() or not first.done():
            first.cancel()
            return []
        self._held_since, message = first.result()
        batch.append(message)
        while len(batch) < BATCH and not self._received.empty():
            batch.append(self._received.get_nowait()[1])
        self.is_active = True
        return batch

    def check_hold(self) -> None:
        """Raises `HeldTooLong` if the last batch's first message, the oldest of all, was received too long ago."""
        if self._clock() - self._held_since > LONGEST_HOLD:
            raise HeldTooLong

    async def acknowledge(self, batch: Sequence[DeliveredMessage]) -> None:
        """Acknowledges the batch, which is processed, and all before it."""
        if self._is_careful and not _is_suspect(batch[-1]):
            await self._receive_many()
        await self._channel.basic_ack(batch[-1].delivery_tag or 0, multiple=True)

    async def is_drained(self) -> bool:
        """Whether the queue is empty, if only this process receives from it and has acknowledged what it received."""
        waiting = (await self._channel.queue_declare(self.queue, passive=True)).message_count
        # The channel answers this one after all that the queue had delivered when it was counted.
        await self._channel.basic_qos(prefetch_count=PREFETCH)
        return not waiting and self._received.empty()

    async def _receive_many(self) -> None:
        """Replaces the consumer, because a consumer keeps its prefetch while a delivery is unacknowledged.

        The message is processed and not acknowledged, so that another process which becomes active now receives
        nothing before its effect, and the queue is never without a consumer.
        """
        self._is_careful = self.is_active = False
        await self._consume(PREFETCH, self._tag(is_careful=False))
        await self._channel.basic_cancel(self._tag(is_careful=True))

    async def _consume(self, prefetch: int, tag: str) -> None:
        await self._channel.basic_qos(prefetch_count=prefetch)
        await self._channel.basic_consume(self.queue, self._arrived, consumer_tag=tag)

    async def _arrived(self, message: DeliveredMessage) -> None:
        self._received.put_nowait((self._clock(), message))

    def _tag(self, *, is_careful: bool) -> str:
        return f"{self.queue}, one by one" if is_careful else self.queue

    def _lose(self, _: object) -> None:
        self.lost.set()


def _is_suspect(message: DeliveredMessage) -> bool:
    """Whether the broker says so: only a redelivered message has its count, else the header is the sender's."""
    count = (message.header.properties.headers or {}).get("x-delivery-count", 0)
    return bool(message.redelivered) and isinstance(count, int) and count >= SUSPICIOUS
