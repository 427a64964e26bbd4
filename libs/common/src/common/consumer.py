"""The consumer: messages in, effects in PostgreSQL, acknowledged after the commit.

A batch of deliveries is one transaction: inbox rows and handlers' effects stand or fall together. Should it fail, its
messages are tried one by one, so that a poisonous one harms only itself: it goes through the retry tiers and is then
parked. An outage of the database is nobody's fault: the batch waits and is tried again.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from prometheus_client import Counter, Histogram
from pydantic import BaseModel

from common import broker, parked
from common.backlog import parked_measured
from common.database import Database, utc_now
from common.events import Undecodable, decode
from common.handlers import Handlers, Received
from common.health import Health
from common.inbox import first_deliveries
from common.outages import is_outage
from common.settings import ServiceSettings
from common.upkeep import inbox_kept
from common.wakeup import first_of

log = structlog.get_logger(__name__)

HANDLED: Final = Counter("waybill_consumer_messages_total", "Deliveries by what became of them.", ["outcome"])
RETRIES: Final = Counter("waybill_consumer_retries_total", "Messages sent to a retry queue, by its delay.", ["tier"])
LAG: Final = Histogram(
    "waybill_consumer_lag_seconds",
    "From an event's occurrence to the commit of its effect.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
)

PREFETCH: Final = 300
BATCH: Final = 100
ATTEMPT_HEADER: Final = "x-waybill-attempt"
CAUSE_HEADER: Final = "x-waybill-cause"
_OUTAGE_PAUSE: Final = 1.0


async def consume(settings: ServiceSettings, health: Health, stop: asyncio.Event, handlers: Handlers) -> None:
    """The `consume` role: runs until `stop`, through any outage of either side."""
    database = Database.open(settings, role="consume")
    try:
        async with (
            parked_measured(database.dsn, f"{settings.service}-consume-backlog"),
            inbox_kept(database, timedelta(days=settings.outbox_retention_days)),
        ):
            await Consumer(settings, database, handlers, health).run(stop)
    finally:
        await database.close()


class Consumer:
    def __init__(self, settings: ServiceSettings, database: Database, handlers: Handlers, health: Health) -> None:
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
        await broker.keep(lambda: self._session(stop), stop, what=self._queue)

    async def _session(self, stop: asyncio.Event) -> None:
        async with (
            broker.connect(self._amqp_url, f"{self._service}-consume") as amqp,
            broker.connect(self._amqp_url, f"{self._service}-consume-publish") as out,
        ):
            await self._declare(amqp)
            channel, publisher = (
                await broker.wire(amqp, confirms=False),
                await broker.wire(out, confirms=True),
            )
            deliveries: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
            await channel.basic_qos(prefetch_count=PREFETCH)
            lost = asyncio.Event()
            channel.on_consumer_cancel_callbacks.add(lambda _: lost.set())
            for closing in (channel.closing, publisher.closing):
                closing.add_done_callback(lambda _: lost.set())
            tags = (self._queue, f"{self._queue}.parked")
            for queue in tags:
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
            # Hand back, by nack, what was delivered but not begun: a reject would count as a failure.
            for tag in tags:
                await channel.basic_cancel(tag)
            while not deliveries.empty():
                await channel.basic_nack(_tag(deliveries.get_nowait()), requeue=True)

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
        while not lost.is_set():
            try:
                try:
                    await self._take(batch)
                except Exception as error:
                    if is_outage(error):
                        raise
                    for message in batch:
                        await self._take_alone(message, publisher)
                await channel.basic_ack(_tag(batch[-1]), multiple=True)
            except Exception as error:
                if not is_outage(error):
                    raise
                log.warning("database away, holding the batch", error=type(error).__name__, held=len(batch))
                await first_of(stop, within=_OUTAGE_PAUSE)
                if stop.is_set():
                    return
            else:
                return

    async def _take(self, batch: Sequence[DeliveredMessage]) -> None:
        """The batch in one transaction: inbox, effects, and what must be parked at once."""
        events: list[Received[BaseModel]] = []
        taken: list[Received[BaseModel]] = []
        unreadable: list[tuple[DeliveredMessage, str]] = []
        for message in batch:
            if message.routing_key == f"{self._queue}.parked":
                unreadable.append((message, parked.DELIVERY_LIMIT))
                continue
            try:
                event = self._handlers.read(decode(message.body, message.header.properties))
            except Undecodable as error:
                unreadable.append((message, str(error)))
            else:
                if event is not None:
                    events.append(event)
        async with self._database.transaction() as session:
            new = await first_deliveries(session, self._queue, [event.id for event in events])
            for event in events:
                if event.id in new:
                    new.discard(event.id)
                    taken.append(event)
            await self._handlers.handle(session, *taken)
            for message, cause in unreadable:
                await parked.park(session, self._queue, message, cause, attempts=_attempt(message))
                log.error("message parked", queue=self._queue, cause=cause)
        HANDLED.labels("taken").inc(len(taken))
        HANDLED.labels("duplicate").inc(len(events) - len(taken))
        HANDLED.labels("parked").inc(len(unreadable))
        now = utc_now()
        for event in taken:
            LAG.observe(max(0.0, (now - event.time).total_seconds()))

    async def _take_alone(self, message: DeliveredMessage, publisher: Channel) -> None:
        try:
            await self._take([message])
        except Exception as error:
            if is_outage(error):
                raise
            await self._retry_or_park(message, error, publisher)

    async def _retry_or_park(self, message: DeliveredMessage, error: Exception, publisher: Channel) -> None:
        attempt, cause = _attempt(message), f"{type(error).__name__}: {error}"[:500]
        properties = message.header.properties
        is_last = attempt >= len(broker.RETRY_TIERS)
        if not is_last:
            properties.expiration = str(int(self._delays[attempt] * 1000))
        if is_last or not broker.make_sendable(properties, {ATTEMPT_HEADER: attempt + 1, CAUSE_HEADER: cause}):
            log.error("message parked", queue=self._queue, attempts=attempt + 1, exc_info=error)
            async with self._database.transaction() as session:
                await parked.park(session, self._queue, message, cause, attempts=attempt + 1)
            HANDLED.labels("parked").inc()
            return
        log.warning("handler failed, will retry", queue=self._queue, attempt=attempt + 1, exc_info=error)
        await publisher.basic_publish(
            message.body,
            routing_key=f"{self._queue}.retry.{broker.RETRY_TIERS[attempt]}",
            properties=properties,
            mandatory=True,
            timeout=30,
        )
        HANDLED.labels("retried").inc()
        RETRIES.labels(broker.RETRY_TIERS[attempt]).inc()


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


def _attempt(message: DeliveredMessage) -> int:
    value = (message.header.properties.headers or {}).get(ATTEMPT_HEADER, 0)
    return value if isinstance(value, int) and value >= 0 else 0
