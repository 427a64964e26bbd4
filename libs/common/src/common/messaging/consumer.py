"""The consumer: messages in, effects in PostgreSQL, acknowledged after the commit.

A batch of deliveries is one transaction: inbox rows and handlers' effects stand or fall together. Should it fail, its
messages are tried one by one, so that a poisonous one harms only itself: it goes through the retry tiers and is then
parked. An outage of the database is nobody's fault: the batch waits and is tried again. A statement that never ends in
time looks like one; it is the message's fault where the database answers others.
"""

import asyncio
from collections.abc import Sequence
from copy import copy
from datetime import timedelta
from typing import Any, Final

import structlog
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from prometheus_client import Counter

from common.db.database import Database
from common.db.outages import is_outage, ran_out_of_time
from common.messaging import broker, parked
from common.messaging.aggregate_versions import aggregate_versions, reach
from common.messaging.backlog_metrics import parked_measured
from common.messaging.batch import ATTEMPT_HEADER, DEFERRAL_HEADER, HANDLED, Reading, read, take
from common.messaging.event_handlers import EventHandlers
from common.messaging.inbox import inbox
from common.messaging.retention import deleting_expired
from common.runtime.background import first_of
from common.runtime.health import Health
from common.settings import ServiceSettings

log = structlog.get_logger(__name__)

RETRIES: Final = Counter("waybill_consumer_retries_total", "Messages sent to a retry queue, by its delay.", ["tier"])
for _tier in broker.RETRY_TIERS:
    RETRIES.labels(_tier)  # zero from the start: what appears with its first case can't be counted

PREFETCH: Final = 300
BATCH: Final = 100
CAUSE_HEADER: Final = "x-waybill-cause"
_OUTAGE_PAUSE: Final = 1.0
_PATIENCE: Final = 3
"""How often in a row a batch runs out of time until its own statements are doubted."""
_TIER_TIMEOUT: Final = 20.0
"""Seconds; less than a process has to stop in."""


async def consume(settings: ServiceSettings, health: Health, stop: asyncio.Event, handlers: EventHandlers) -> None:
    """The `consume` role: runs until `stop`, through any outage of either side."""
    columns = [inbox.c.received_at, parked.parked_messages.c.resolved_at]
    columns += [aggregate_versions.c.known_since] if handlers.in_order else []
    database = Database.open(settings, role="consume")
    try:
        async with (
            parked_measured(database.dsn, f"{settings.service}-consume-backlog"),
            deleting_expired(database, columns, timedelta(days=settings.outbox_retention_days)),
        ):
            await Consumer(settings, database, handlers, health).run(stop)
    finally:
        await database.close()


class Consumer:
    def __init__(self, settings: ServiceSettings, database: Database, handlers: EventHandlers, health: Health) -> None:
        self._service = settings.service
        self._queue = f"{settings.service}.inbound"
        self._amqp_url = settings.amqp_url.get_secret_value()
        self._delays = settings.retry_delays
        self._database = database
        self._handlers = handlers
        self._attached = False
        health.add("broker", self._check)
        health.add("postgres", database.ping)

    async def _check(self) -> None:
        if not self._attached:
            raise ConnectionError("not attached to its queue")

    async def run(self, stop: asyncio.Event) -> None:
        await broker.run_with_reconnect(lambda: self._session(stop), stop, what=self._queue)

    async def _session(self, stop: asyncio.Event) -> None:
        async with (
            broker.connect(self._amqp_url, f"{self._service}-consume") as amqp,
            broker.connect(self._amqp_url, f"{self._service}-consume-publish") as out,
        ):
            await self._declare(amqp)
            channel, publisher = (
                await broker.raw_channel(amqp, confirms=False),
                await broker.raw_channel(out, confirms=True),
            )
            deliveries: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
            await channel.basic_qos(prefetch_count=PREFETCH)
            lost = asyncio.Event()
            channel.on_consumer_cancel_callbacks.add(lambda _: lost.set())
            for closing in (channel.closing, publisher.closing):
                closing.add_done_callback(lambda _: lost.set())
            for queue in (self._queue, f"{self._queue}.parked"):
                await channel.basic_consume(queue, deliveries.put, consumer_tag=queue)
            self._attached = True
            log.info("consumer attached", queue=self._queue)
            try:
                while not stop.is_set() and not lost.is_set():
                    if batch := await _next_batch(deliveries, stop, lost):
                        await self._settle(batch, channel, publisher, stop, lost)
            finally:
                self._attached = False
            if lost.is_set():
                raise ConnectionError("the broker cancelled the consumer or closed the channel")
            # What was delivered but not begun goes back as the connection closes, in order. Sent back by nacks,
            # hundreds at once came out of a quorum queue in another order (RabbitMQ 3.10).

    async def _declare(self, amqp: AbstractConnection) -> None:
        channel = await amqp.channel()
        await broker.declare_consumer(channel, self._service, self._handlers.bindings)
        await channel.close()

    async def _settle(
        self,
        batch: Sequence[DeliveredMessage],
        channel: Channel,
        publisher: Channel,
        stop: asyncio.Event,
        lost: asyncio.Event,
    ) -> None:
        """Takes the batch's effects and acknowledges it; returns without an ack when stopped in an outage."""
        readings = [read(message, self._queue, self._handlers) for message in batch]
        overdue = 0
        while not lost.is_set():
            try:
                await self._take(readings, publisher, in_doubt=overdue >= _PATIENCE)
                await channel.basic_ack(_tag(batch[-1]), multiple=True)
            except Exception as error:
                if not is_outage(error):
                    raise
                overdue = overdue + 1 if ran_out_of_time(error) else 0
                # The database, or a retry queue that took nothing in time.
                log.warning("a server is away, holding the batch", error=type(error).__name__, held=len(batch))
                await first_of(stop, within=_OUTAGE_PAUSE)
                if stop.is_set():
                    return
            else:
                return

    async def _take(self, readings: Sequence[Reading], publisher: Channel, *, in_doubt: bool) -> None:
        """Together, or one by one where that fails: so one that is poisonous harms only itself."""
        try:
            early = await take(self._database, self._queue, self._handlers, readings)
        except Exception as error:
            if is_outage(error):
                if not (in_doubt and ran_out_of_time(error)):
                    raise
                await self._database.ping()  # raises in an outage
            if len(readings) == 1:
                with readings[0].traced():
                    await self._retry_or_park(readings[0], error, publisher)
            else:
                for reading in readings:
                    await self._take([reading], publisher, in_doubt=in_doubt)
        else:
            for reading in early:
                await self._defer(reading, publisher)

    async def _retry_or_park(self, reading: Reading, error: Exception, publisher: Channel) -> None:
        attempt, cause = reading.count(ATTEMPT_HEADER), f"{type(error).__name__}: {error}"[:500]
        if attempt < len(broker.RETRY_TIERS):
            async with self._database.transaction() as session:
                await reach(session, self._queue, reading.up_to(reading.version - 1))  # later ones are to wait for it
            if await self._send_to_tier(
                attempt, reading, {ATTEMPT_HEADER: attempt + 1, CAUSE_HEADER: cause}, publisher
            ):
                log.warning("handler failed, will retry", queue=self._queue, attempt=attempt + 1, exc_info=error)
                HANDLED.labels("retried").inc()
                return
        log.error("message parked", queue=self._queue, attempts=attempt + 1, exc_info=error)
        await self._park(reading, cause, attempts=attempt + 1)

    async def _defer(self, early: Reading, publisher: Channel) -> None:
        """Through the same delays as the event before it that failed, so that it comes back behind it."""
        times = early.count(DEFERRAL_HEADER)
        if await self._send_to_tier(times, early, {DEFERRAL_HEADER: times + 1}, publisher):
            HANDLED.labels("deferred").inc()
        else:
            await self._park(early, "an event before it is missing, and it can't be sent to a retry queue", attempts=0)

    async def _send_to_tier(self, tier: int, reading: Reading, headers: dict[str, Any], publisher: Channel) -> bool:
        """Whether it is in the retry queue now; false where its properties can't be sent."""
        # A copy: what was received stays as it was, should it be tried again or parked.
        properties = copy(reading.message.header.properties)
        properties.expiration = str(int(self._delays[tier] * 1000))
        if not broker.make_sendable(properties, headers):
            return False
        label = broker.RETRY_TIERS[tier]
        await publisher.basic_publish(
            reading.message.body,
            routing_key=f"{self._queue}.retry.{label}",
            properties=properties,
            mandatory=True,
            timeout=_TIER_TIMEOUT,
        )
        RETRIES.labels(label).inc()
        return True

    async def _park(self, reading: Reading, cause: str, *, attempts: int) -> None:
        async with self._database.transaction() as session:
            await parked.park(session, self._queue, reading.message, cause, attempts=attempts)
            await reach(session, self._queue, reading.up_to(reading.version))  # nobody waits for it any more
        HANDLED.labels("parked").inc()


async def _next_batch(deliveries: asyncio.Queue[DeliveredMessage], *until: asyncio.Event) -> list[DeliveredMessage]:
    """At least one delivery and whatever else is there, up to `BATCH`; nothing once an event of `until` is set."""
    first = asyncio.ensure_future(deliveries.get())
    waits = [first, *(asyncio.ensure_future(event.wait()) for event in until)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits[1:]:
            wait.cancel()
    if not first.done():
        first.cancel()
        return []
    batch = [first.result()]
    while len(batch) < BATCH and not deliveries.empty():
        batch.append(deliveries.get_nowait())
    return batch


def _tag(message: DeliveredMessage) -> int:
    return message.delivery_tag or 0
