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
from time import perf_counter
from typing import Any, Final

import asyncpg
import structlog
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from prometheus_client import Counter, Histogram

from common.db.database import OUTBOX_CHANNEL
from common.db.driver import DRIVER_ERRORS, READ_ONLY, driver_dsn
from common.db.notify import listen
from common.messaging import broker, event_log
from common.messaging.backlog_metrics import measuring_outbox
from common.messaging.cloudevents import encode, exchange_of
from common.messaging.message_spans import publishing
from common.messaging.replay import envelope
from common.messaging.topology import declare_producer
from common.runtime.background import background, first_of
from common.runtime.health import Health
from common.settings import ServiceSettings

log = structlog.get_logger(__name__)

PUBLISHED: Final = Counter("waybill_relay_published_total", "Events confirmed by the broker and moved to the log.")
CONFIRM: Final = Histogram(
    "waybill_publish_confirm_seconds",
    "From an event's publishing to the broker's confirm.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)

BATCH: Final = 500
_POLL: Final = 1.0
_MAINTENANCE_INTERVAL: Final = 3600.0
_CONFIRM_TIMEOUT: Final = 10.0
_FROZEN: Final = "15000"
"""Milliseconds after which PostgreSQL ends the transaction of a frozen relay; longer than confirms may take."""
# No row while another relay leads, else the time at which this one got the lock. The transaction's own start may lie
# before another relay's last batch; readers of the log by time would see the two batches reversed, or skip this one.
_LEADER: Final = "SELECT clock_timestamp() WHERE pg_try_advisory_xact_lock(hashtext('outbox-relay'))"
_OLDEST: Final = """
    SELECT id, event_id, type, subject, version, occurred_at, data, traceparent
    FROM outbox ORDER BY id LIMIT $1"""
# By a list of ids, because presence in the outbox means "pending". A cursor would skip rows that commit late.
_MOVE: Final = """
    WITH sent AS (DELETE FROM outbox WHERE id = ANY($1::bigint[]) RETURNING *)
    INSERT INTO event_log (published_at, event_id, type, subject, version, occurred_at, data, traceparent)
    SELECT $2, event_id, type, subject, version, occurred_at, data, traceparent
    FROM sent ORDER BY id"""


async def relay(settings: ServiceSettings, health: Health, stop: asyncio.Event) -> None:
    """The `relay` role: runs until `stop`, through outages of PostgreSQL and RabbitMQ."""
    url = settings.database_url.get_secret_value()
    async with measuring_outbox(url, f"{settings.service}-relay-backlog"):
        await Relay(settings, health).run(stop)


class Relay:
    def __init__(self, settings: ServiceSettings, health: Health) -> None:
        self._service = settings.service
        self._dsn = driver_dsn(settings.database_url.get_secret_value())
        self._amqp_url = settings.amqp_url.get_secret_value()
        self._streamed = settings.streamed
        self._retention_days = settings.outbox_retention_days
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
                self._database(name) as database,
            ):
                await self._declare(amqp)
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
                if await self._batch(database, channel) == BATCH:
                    continue
            except TimeoutError:
                await broker.until_unblocked(channel, stop)
                raise
            await first_of(recorded, stop, within=_POLL)
            if channel.is_closed:
                raise ConnectionError("connection lost")

    async def _batch(self, database: Any, channel: Channel) -> int:
        """Publishes and moves up to `BATCH` rows. Returns how many it read; 0 while another relay leads."""
        async with database.transaction():
            if (led_at := await database.fetchval(_LEADER)) is None:
                return 0
            rows = await database.fetch(_OLDEST, BATCH)
            if not rows:
                return 0
            confirmed, failure = await self._publish(channel, rows)
            if confirmed:
                await database.execute(_MOVE, confirmed, led_at)
        PUBLISHED.inc(len(confirmed))
        if failure is not None:
            raise failure
        return len(rows)

    async def _publish(self, channel: Channel, rows: list[Any]) -> tuple[list[int], Exception | None]:
        """Returns the ids that the broker confirmed, and the first failure.

        A publish that failed or timed out has an unknown outcome: the row stays in the outbox and is published again
        with the same id on a new channel. Later events of its aggregate wait for it.
        """
        by_aggregate: dict[str, list[Any]] = {}
        for row in rows:
            by_aggregate.setdefault(row["subject"], []).append(row)
        confirmed: list[int] = []

        async def in_order(aggregate: list[Any]) -> None:
            for row in aggregate:
                sent = perf_counter()
                with publishing(row["type"], row["event_id"], row["traceparent"]) as span:
                    body, properties = encode(envelope(row, span.traceparent))
                    await channel.basic_publish(
                        body,
                        exchange=exchange_of(self._service),
                        routing_key=row["type"],
                        properties=properties,
                        mandatory=True,
                        wait=False,
                    )
                CONFIRM.observe(perf_counter() - sent)
                confirmed.append(row["id"])

        try:
            async with asyncio.timeout(_CONFIRM_TIMEOUT):
                outcomes = await asyncio.gather(*map(in_order, by_aggregate.values()), return_exceptions=True)
        except TimeoutError:
            return confirmed, TimeoutError("the broker did not confirm in time")
        return confirmed, next((error for error in outcomes if isinstance(error, Exception)), None)

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
