"""Reading the event log: following it, and sending a part of it to one queue again.

A consumer that starts late binds its queue first and replays then: what is published meanwhile comes by the binding,
what was before comes from here, and its inbox makes the overlap safe.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from common import broker
from common.database import driver_dsn
from common.events import Envelope, encode
from common.settings import ServiceSettings

_PAGE: Final = 500
# One relay at a time appends to the log, so its order is the published order and a cursor can't skip a row.
_AFTER: Final = """
    SELECT published_at, position, event_id, type, subject, version, occurred_at, data, traceparent
    FROM event_log
    WHERE (published_at, position) > ($1, $2) AND (cardinality($3::text[]) = 0 OR type = ANY($3))
    ORDER BY published_at, position LIMIT $4"""


@dataclass(frozen=True, slots=True)
class Logged:
    published_at: datetime
    position: int
    event: Envelope


async def published(
    connection: Any, since: datetime, types: Sequence[str] = (), *, position: int = 0
) -> AsyncIterator[Logged]:
    """Events published after (`since`, `position`), oldest first, up to now. `connection` is asyncpg's."""
    cursor = (since, position)
    while rows := await connection.fetch(_AFTER, *cursor, list(types), _PAGE):
        for row in rows:
            yield Logged(row["published_at"], row["position"], envelope(row, row["traceparent"]))
        cursor = (rows[-1]["published_at"], rows[-1]["position"])


async def replay(settings: ServiceSettings, *, since: datetime, to_queue: str, types: Sequence[str] = ()) -> int:
    """Sends what was published since then to one queue, with the original ids; returns how many events.

    Raises `PublishError` when there is no such queue, or `ChannelNotFoundEntity` when there was nothing to send to it.
    """
    count = 0
    connection = await asyncpg.connect(driver_dsn(settings.database_url.get_secret_value()), timeout=10)
    try:
        async with broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-replay") as amqp:
            channel = await broker.wire(amqp, confirms=True)
            async for logged in published(connection, since, types):
                body, properties = encode(logged.event)
                await channel.basic_publish(
                    body, routing_key=to_queue, properties=properties, mandatory=True, timeout=30
                )
                count += 1
            if count == 0:  # nothing was sent that could have come back
                # An exclusive queue is one, and 4.x tells only those who may configure it.
                with contextlib.suppress(ChannelLockedResource, ChannelAccessRefused):
                    await channel.queue_declare(to_queue, passive=True)
    finally:
        await connection.close()
    return count


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
