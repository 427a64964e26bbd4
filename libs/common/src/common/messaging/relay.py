"""The relay: publishes recorded events from the outbox, in order per aggregate, and moves them to the event log.

One relay of a service leads, by an advisory lock held for one batch's transaction; others stand by. A relay that loses
the transaction loses the lock, so two can never both remove rows. A batch: read the oldest rows, publish them with
confirms (one unconfirmed message per aggregate, aggregates concurrently), move the confirmed ones to the log, commit.
After a crash at any point the rows are still in the outbox and are published again with the same ids.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import asyncpg
import structlog
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from prometheus_client import Counter

from common.db.database import OUTBOX_CHANNEL
from common.db.driver import DRIVER_ERRORS, READ_ONLY, driver_dsn
from common.db.notify import listen
from common.messaging import broker, event_log
from common.messaging.backlog_metrics import measuring_outbox
from common.messaging.publisher import Publisher
from common.messaging.stream_metrics import measuring_stream
from common.messaging.topology import declare_producer, kept_declared
from common.messaging.unsendable import SENDABLE, set_aside
from common.runtime.background import background, first_of
from common.runtime.health import Health
from common.settings import ServiceSettings

log = structlog.get_logger(__name__)

PUBLISHED: Final = Counter("waybill_relay_published_total", "Events confirmed by the broker and moved to the log.")

BATCH: Final = 500
_POLL: Final = 1.0
_MAINTENANCE_INTERVAL: Final = 3600.0
_FROZEN: Final = "15000"
"""Milliseconds after which PostgreSQL ends the transaction of a frozen relay; longer than confirms may take."""
# No row while another relay leads, else the time at which this one got the lock. The transaction's own start may lie
# before another relay's last batch; readers of the log by time would see the two batches reversed, or skip this one.
_LEADER: Final = "SELECT clock_timestamp() WHERE pg_try_advisory_xact_lock(hashtext('outbox-relay'))"
_OLDEST: Final = f"""
    SELECT id, event_id, type, subject, version, occurred_at, data, traceparent
    FROM outbox WHERE {SENDABLE} ORDER BY id LIMIT $1"""  # noqa: S608 - a constant
# While types are held: without their events, and without the later events of the same aggregates.
_OLDEST_OTHERS: Final = f"""
    SELECT id, event_id, type, subject, version, occurred_at, data, traceparent
    FROM outbox WHERE {SENDABLE} AND type <> ALL($2::text[]) AND NOT EXISTS (
        SELECT FROM outbox AS held
        WHERE held.subject = outbox.subject AND held.id <= outbox.id AND held.type = ANY($2::text[]))
    ORDER BY id LIMIT $1"""  # noqa: S608 - a constant
# By a list of ids, because presence in the outbox means "pending". A cursor would skip rows that commit late.
_MOVE: Final = """
    WITH sent AS (DELETE FROM outbox WHERE id = ANY($1::bigint[]) RETURNING *)
    INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data, traceparent)
    SELECT $2, event_id, type, subject, version, occurred_at, data, traceparent
    FROM sent ORDER BY id"""


async def relay(settings: ServiceSettings, health: Health, stop: asyncio.Event) -> None:
    """The `relay` role: runs until `stop`, through outages of PostgreSQL and RabbitMQ."""
    url = settings.database_url.get_secret_value()
    async with measuring_outbox(url, f"{settings.service}-relay-backlog"), measuring_stream(settings):
        await Relay(settings, health).run(stop)


class Relay:
    def __init__(self, settings: ServiceSettings, health: Health) -> None:
        self._service = settings.service
        self._dsn = driver_dsn(settings.database_url.get_secret_value())
        self._amqp_url = settings.amqp_url.get_secret_value()
        self._streamed = settings.streamed
        self._retention_days = settings.outbox_retention_days
        self._publisher = Publisher(settings.service)
        self._attached = False
        health.add("broker", self._check)
        health.add("postgres", self._ping)

    async def _check(self) -> None:
        if not self._attached:
            raise ConnectionError("not attached to the broker and the database")

    async def _ping(self) -> None:
        """On a connection of its own, because the session's may be busy with a batch."""
        connection = await asyncpg.connect(
            self._dsn, timeout=10, server_settings={"application_name": f"{self._service}-relay-ping"}
        )
        try:
            if await connection.fetchval(READ_ONLY):
                raise ConnectionError("the database accepts no writes")
        finally:
            connection.terminate()

    async def run(self, stop: asyncio.Event) -> None:
        await broker.run_with_reconnect(lambda: self._session(stop), stop, what=f"{self._service} relay")

    async def _session(self, stop: asyncio.Event) -> None:
        name = f"{self._service}-relay"
        recorded = asyncio.Event()
        listening = partial(listen, OUTBOX_CHANNEL, recorded.set, dsn=self._dsn, name=f"{name}-listen")
        try:
            async with (
                background(listening),
                broker.connect(self._amqp_url, name) as amqp,
                kept_declared(lambda: self._declare(amqp)),
                self._database(name) as database,
            ):
                channel = await broker.raw_channel(amqp, confirms=True)
                await event_log.maintain(database, self._retention_days)
                self._attached = True
                log.info("relay attached", service=self._service)
                await self._work(database, recorded, channel, stop)
        except DRIVER_ERRORS as error:
            raise ConnectionError(f"database: {type(error).__name__}") from error
        finally:
            self._attached = False

    async def _work(self, database: Any, recorded: asyncio.Event, channel: Channel, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        maintained = loop.time()
        while not stop.is_set():
            recorded.clear()
            if loop.time() - maintained > _MAINTENANCE_INTERVAL:
                await event_log.maintain(database, self._retention_days)
                maintained = loop.time()
            try:
                if await self._batch(database, channel):
                    continue
            except TimeoutError:
                await broker.until_unblocked(channel, stop)
                raise
            await first_of(recorded, stop, within=min([_POLL, *self._publisher.held().values()]))
            if channel.is_closed:
                raise ConnectionError("connection lost")

    async def _batch(self, database: Any, channel: Channel) -> bool:
        """Publishes and moves up to `BATCH` rows. Returns whether more may be waiting; never while another leads."""
        held = [*self._publisher.held()]
        async with database.transaction():
            if (led_at := await database.fetchval(_LEADER)) is None:
                return False
            rows = await (database.fetch(_OLDEST_OTHERS, BATCH, held) if held else database.fetch(_OLDEST, BATCH))
            if not rows:
                return False
            confirmed, unsendable, failure = await self._publisher.publish(channel, rows)
            if confirmed:
                await database.execute(_MOVE, confirmed, led_at)
            if unsendable:
                await set_aside(database, unsendable)
        PUBLISHED.inc(len(confirmed))
        if failure is not None:
            raise failure
        return len(rows) == BATCH or len(confirmed) < len(rows)

    async def _declare(self, amqp: AbstractConnection) -> None:
        channel = await amqp.channel()
        await declare_producer(channel, self._service, self._streamed)
        await channel.close()

    @contextlib.asynccontextmanager
    async def _database(self, name: str) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=10,
            command_timeout=30,
            server_settings={"application_name": name, "idle_in_transaction_session_timeout": _FROZEN},
        )
        try:
            yield connection
        finally:
            connection.terminate()
