"""Reads the event log page by page, and sends a part of it to one queue again.

A consumer that starts late binds its queue first and then replays: new events arrive through the binding, old ones from
the log, and the inbox makes the overlap safe. A batch that the relay published just before the binding may not be in
the log yet: a replay waits for that batch.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiormq import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from common.db.driver import driver_connection
from common.messaging import broker
from common.messaging.cloudevents import Envelope, encode
from common.messaging.topology import replay_exchange
from common.settings import ServiceSettings

_PAGE: Final = 500
# Batches are appended to the log one at a time, each until its commit, so a cursor can't skip a row.
_AFTER: Final = """
    SELECT published_at, position, event_id, type, subject, version, occurred_at, data, traceparent
    FROM event_log
    WHERE (published_at, position) > ($1, $2) AND (published_at, position) <= ($3, $4)
    AND (cardinality($5::text[]) = 0 OR type = ANY($5))
    ORDER BY published_at, position LIMIT $6"""
# Each worker of a relay shares this lock for a batch: a reader that gets it for itself finds all earlier confirmed
# events in the log. Workers never wait for the lock; they try again at the next notification or after a second.
_SETTLED: Final = "SELECT pg_advisory_xact_lock(hashtext('outbox-relay'))"
_LAST: Final = "SELECT published_at, position FROM event_log ORDER BY published_at DESC, position DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Logged:
    published_at: datetime
    event: Envelope


async def published(connection: Any, since: datetime, types: Sequence[str] = ()) -> AsyncIterator[Sequence[Logged]]:
    """Pages of events published from `since` to the time of the call, oldest first. `connection` is asyncpg's."""
    if (last := await connection.fetchrow(_LAST)) is None:
        return
    cursor = (since, 0)
    while rows := await connection.fetch(_AFTER, *cursor, *last, list(types), _PAGE):
        yield [Logged(row["published_at"], envelope(row, row["traceparent"])) for row in rows]
        cursor = (rows[-1]["published_at"], rows[-1]["position"])


async def replay(settings: ServiceSettings, *, since: datetime, to_queue: str, types: Sequence[str] = ()) -> int:
    """Sends the events published from `since` to one queue, with their original ids. Returns how many.

    They go through the producer's replay exchange, to which the queue's owner has bound the queue under its own name.
    Raises `PublishError` if it is not bound, or `ChannelNotFoundEntity` if there was nothing to send and no such queue.
    """
    count = 0
    async with (
        driver_connection(settings.database_url.get_secret_value()) as connection,
        broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-replay") as amqp,
    ):
        channel = await broker.raw_channel(amqp, confirms=True)
        await connection.execute(_SETTLED)
        async for page in published(connection, since, types):
            await _send([logged.event for logged in page], channel, replay_exchange(settings.service), to_queue)
            count += len(page)
        if count == 0:  # nothing was published that could be returned as unroutable, so look for the queue
            # An exclusive queue exists, and RabbitMQ 4 reports it only to users with configure permission.
            with contextlib.suppress(ChannelLockedResource, ChannelAccessRefused):
                await channel.queue_declare(to_queue, passive=True)
    return count


async def _send(events: Sequence[Envelope], channel: Channel, exchange: str, to_queue: str) -> None:
    """Sends aggregates concurrently, each in order: if the queue refuses an event, none of its successors is sent."""

    async def in_order(aggregate: Sequence[Envelope]) -> None:
        for event in aggregate:
            body, properties = encode(event)
            await channel.basic_publish(
                body, exchange=exchange, routing_key=to_queue, properties=properties, mandatory=True, timeout=30
            )

    by_aggregate: dict[str, list[Envelope]] = {}
    for event in events:
        by_aggregate.setdefault(event.subject, []).append(event)
    await asyncio.gather(*map(in_order, by_aggregate.values()))


def envelope(row: Any, traceparent: str | None) -> Envelope:
    """The event in a row of `outbox` or `event_log`, as part of the given trace."""
    return Envelope(
        id=row["event_id"],
        type=row["type"],
        subject=row["subject"],
        version=row["version"],
        time=row["occurred_at"],
        data=row["data"],
        traceparent=traceparent,
    )
