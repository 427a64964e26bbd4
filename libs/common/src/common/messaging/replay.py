"""Reads the event log page by page, and sends a part of it to one queue again.

The log is read by position, which follows the order of publishing whatever clocks did. Each page is a statement of its
own, so that even a replay of all history holds no transaction open. Its progress is a position: whatever ends a replay,
another one continues after it. Events sent twice do no harm, because of the inbox.

A consumer that starts late binds its queue first and then replays: new events arrive through the binding, old ones from
the log, and the inbox makes the overlap safe. A batch that the relay published just before the binding may not be in
the log yet: a replay waits for that batch.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, Final

from aiormq import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from common.db.driver import driver_connection
from common.messaging import broker
from common.messaging.cloudevents import Envelope, encode
from common.messaging.topology import replay_exchange
from common.runtime.background import first_of
from common.settings import ServiceSettings

_PAGE: Final = 500
_WINDOW: Final = 20_000
"""Positions that one statement reads at most: a rare type must not make it last."""
# Batches are appended to the log one at a time, each until its commit, so a cursor can't skip a row.
_AFTER: Final = """
    SELECT published_at, position, event_id, type, subject, version, occurred_at, data, traceparent
    FROM event_log
    WHERE position > $1 AND position <= $2 AND (cardinality($3::text[]) = 0 OR type = ANY($3))
    ORDER BY position LIMIT $4"""
_OF_SUBJECTS: Final = _AFTER.replace("ORDER BY", "AND subject = ANY($5::text[]) ORDER BY")
# Each worker of a relay shares this lock for a batch: a reader that gets it for itself finds all earlier confirmed
# events in the log. Workers never wait for the lock; they try again at the next notification or after a second.
_SETTLED: Final = "SELECT pg_advisory_xact_lock(hashtext('outbox-relay'))"
# By a server's clock that was behind, a later position can have an earlier time: the least one of an hour.
_FIRST: Final = """
    SELECT coalesce(
        (SELECT min(position) FROM event_log WHERE published_at >= $1 AND published_at < $1 + interval '1 hour'),
        (SELECT position FROM event_log WHERE published_at >= $1 ORDER BY published_at, position LIMIT 1))"""
_LAST: Final = """
    SELECT position FROM event_log WHERE published_at < $1 ORDER BY published_at DESC, position DESC LIMIT 1"""
_NEWEST: Final = "SELECT max(position) FROM event_log"


@dataclass(frozen=True, slots=True)
class Logged:
    published_at: datetime
    position: int
    event: Envelope


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of the log: what was published from `since` on, or follows the position `after`, and before `until`.

    Without `until` it ends with what is in the log when it is read first. No types or no subjects stand for all.
    """

    since: datetime | None = None
    after: int | None = None
    until: datetime | None = None
    types: Sequence[str] = ()
    subjects: Sequence[str] = ()

    async def bounds(self, connection: Any) -> tuple[int, int]:
        """The position before the first event, and that of the last. `connection` is asyncpg's."""
        newest = await connection.fetchval(_NEWEST) or 0
        last = newest if self.until is None else await connection.fetchval(_LAST, self.until) or 0
        if self.after is not None:
            return self.after, last
        first = await connection.fetchval(_FIRST, self.since)
        return (newest if first is None else first - 1), last


async def published(connection: Any, selection: Selection, after: int, last: int) -> AsyncIterator[Sequence[Logged]]:
    """Pages of the selected events between two positions, in the order of publishing. `connection` is asyncpg's."""
    types, subjects = list(selection.types), list(selection.subjects)
    while after < last:
        if subjects:
            rows = await connection.fetch(_OF_SUBJECTS, after, end := last, types, _PAGE, subjects)
        else:
            rows = await connection.fetch(_AFTER, after, end := min(last, after + _WINDOW), types, _PAGE)
        if rows:
            yield [Logged(row["published_at"], row["position"], envelope(row, row["traceparent"])) for row in rows]
        after = rows[-1]["position"] if len(rows) == _PAGE else end


@dataclass(slots=True)
class Progress:
    """How far a replay came: everything selected up to `position` was sent and confirmed."""

    position: int | None = None
    sent: int = 0
    is_complete: bool = False


async def replay(
    settings: ServiceSettings,
    selection: Selection,
    *,
    to_queue: str,
    progress: Progress,
    reached: Callable[[], None] = lambda: None,
    rate: int | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Sends the selected events to one queue, with their original ids, at most `rate` of them a second.

    `progress` is updated after each part, and then `reached` is called. Ends early when `stop` is set.

    They go through the producer's replay exchange, to which the queue's owner has bound the queue under its own name.
    Raises `PublishError` if it is not bound, or `ChannelNotFoundEntity` if there was nothing to send and no such queue.
    """
    stop = stop or asyncio.Event()
    async with (
        driver_connection(settings.database_url.get_secret_value()) as connection,
        broker.connect(settings.amqp_url.get_secret_value(), f"{settings.service}-replay") as amqp,
    ):
        channel = await broker.raw_channel(amqp, confirms=True)
        await connection.execute(_SETTLED)
        progress.position, last = await selection.bounds(connection)
        due = monotonic()
        async for page in published(connection, selection, progress.position, last):
            for part in _parts(page, rate):
                await first_of(stop, within=max(due - monotonic(), 0))
                if stop.is_set():
                    return
                await _send([logged.event for logged in part], channel, replay_exchange(settings.service), to_queue)
                progress.position, progress.sent = part[-1].position, progress.sent + len(part)
                reached()
                due = max(due + len(part) / rate, monotonic()) if rate else due  # what a slow queue delayed stays late
        if progress.sent == 0:  # nothing was published that could be returned as unroutable, so look for the queue
            # An exclusive queue exists, and RabbitMQ 4 reports it only to users with configure permission.
            with contextlib.suppress(ChannelLockedResource, ChannelAccessRefused):
                await channel.queue_declare(to_queue, passive=True)
        progress.position, progress.is_complete = max(progress.position, last), True


async def count(settings: ServiceSettings, selection: Selection) -> tuple[int, int | None, int | None]:
    """How many events a replay would send, and the positions of the first and the last."""
    total, first, last = 0, None, None
    async with driver_connection(settings.database_url.get_secret_value()) as connection:
        await connection.execute(_SETTLED)
        async for page in published(connection, selection, *await selection.bounds(connection)):
            total, first, last = total + len(page), first or page[0].position, page[-1].position
    return total, first, last


def _parts(page: Sequence[Logged], rate: int | None) -> Iterator[Sequence[Logged]]:
    """The whole page, or parts of at most a tenth of a second."""
    size = max(rate // 10, 1) if rate else len(page)
    for start in range(0, len(page), size):
        yield page[start : start + size]


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
