"""Reading the event log: following it, and sending a part of it to one queue again.

A consumer that starts late binds its queue first and replays then: what is published meanwhile comes by the binding,
what was before comes from here, and its inbox makes the overlap safe. What the relay has in hand at that moment may
have been published just before the binding and be in the log only later: a replay waits for that.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from aiormq import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from common.db.driver import driver_dsn
from common.messaging import broker
from common.messaging.cloudevents import Envelope, encode
from common.settings import ServiceSettings

_PAGE: Final = 500
# One relay at a time appends to the log, so its order is the published order and a cursor can't skip a row.
_AFTER: Final = """
    SELECT published_at, position, event_id, type, subject, version, occurred_at, data, traceparent
    FROM event_log
    WHERE (published_at, position) > ($1, $2) AND (published_at, position) <= ($3, $4)
    AND (cardinality($5::text[]) = 0 OR type = ANY($5))
    ORDER BY published_at, position LIMIT $6"""
# The relay's lock is its batch's: who gets it as a reader finds in the log all that was confirmed until then. A relay
# asks for it without waiting, and tries again when it is next woken, or after a second.
_SETTLED: Final = "SELECT pg_advisory_xact_lock_shared(hashtext('outbox-relay'))"
_LAST: Final = "SELECT published_at, position FROM event_log ORDER BY published_at DESC, position DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Logged:
    published_at: datetime
    event: Envelope


async def published(connection: Any, since: datetime, types: Sequence[str] = ()) -> AsyncIterator[Sequence[Logged]]:
    """What was published since then and before the call, oldest first, page by page. `connection` is asyncpg's."""
    if (last := await connection.fetchrow(_LAST)) is None:
        return
    cursor = (since, 0)
    while rows := await connection.fetch(_AFTER, *cursor, *last, list(types), _PAGE):
        yield [Logged(row["published_at"], envelope(row, row["traceparent"])) for row in rows]
        cursor = (rows[-1]["published_at"], rows[-1]["position"])


async def replay(settings: ServiceSettings, *, since: datetime, to_queue: str, types: Sequence[str] = ()) -> int:
    """Sends what was published since then to one queue, with the original ids; returns how many events.

    Raises `PublishError` when there is no such queue, or `ChannelNotFoundEntity` when there was nothing to send to it.
    """
    count = 0
    connection = await asyncpg.connect(driver_dsn(settings.database_url.get_secret_value()), timeout=10)
    try:
        async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-replay") as amqp:
            channel = await broker.raw_channel(amqp, confirms=True)
            await connection.execute(_SETTLED)
            async for page in published(connection, since, types):
                await _send([logged.event for logged in page], channel, to_queue)
                count += len(page)
            if count == 0:  # nothing was sent that could have come back
                # An exclusive queue is one, and 4.x tells only those who may configure it.
                with contextlib.suppress(ChannelLockedResource, ChannelAccessRefused):
                    await channel.queue_declare(to_queue, passive=True)
    finally:
        await connection.close()
    return count


async def _send(events: Sequence[Envelope], channel: Channel, to_queue: str) -> None:
    """Aggregates side by side, each in its order: should the queue refuse one, none of its successors is there."""

    async def in_order(aggregate: Sequence[Envelope]) -> None:
        for event in aggregate:
            body, properties = encode(event)
            await channel.basic_publish(body, routing_key=to_queue, properties=properties, mandatory=True, timeout=30)

    by_aggregate: dict[str, list[Envelope]] = {}
    for event in events:
        by_aggregate.setdefault(event.subject, []).append(event)
    await asyncio.gather(*map(in_order, by_aggregate.values()))


def envelope(row: Any, traceparent: str | None) -> Envelope:
    """The event of a row of `outbox` or `event_log`, as part of that trace."""
    return Envelope(
        id=row["event_id"],
        type=row["type"],
        subject=row["subject"],
        version=row["version"],
        time=row["occurred_at"],
        data=row["data"],
        traceparent=traceparent,
    )
