"""The consumer: processes messages in a PostgreSQL transaction and acknowledges them after the commit.

A batch of deliveries is one transaction of inbox rows and handlers' effects. If it fails, its messages are processed
one by one, so that a poisonous one affects only itself: it passes through the retry tiers and is then parked. During a
database outage the batch waits, no more messages are received, and none uses up an attempt. A statement that always
times out looks like an outage; it counts as the message's failure when the database answers other statements.
"""

import asyncio
from collections.abc import Sequence
from copy import copy
from datetime import timedelta
from functools import partial
from typing import Any, Final

from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from prometheus_client import Counter, Gauge

from common.db.database import Database
from common.db.outages import is_outage, is_unstorable, ran_out_of_time
from common.messaging import broker, deferred, inbox, parked
from common.messaging.aggregate_versions import advance, aggregate_versions, keep_order
from common.messaging.backlog_metrics import measuring_parked_messages
from common.messaging.batch import (
    ATTEMPT_HEADER,
    HANDLED,
    RECEIVED,
    DecodedDelivery,
    decode_delivery,
    process_batch,
)
from common.messaging.deliveries import Deliveries
from common.messaging.event_handlers import EventHandlers
from common.messaging.receiver import SHARING_INTERVAL, Receiver
from common.messaging.retention import deleting_expired
from common.messaging.topology import RETRY_TIERS, declare_queues, kept_declared, own_exchange
from common.observability import history
from common.observability.log_limit import limited_logger
from common.runtime.background import background, first_of
from common.runtime.health import Health
from common.settings import ServiceSettings

log = limited_logger(__name__)

RETRIES: Final = Counter("waybill_consumer_retries_total", "Messages sent to a retry queue, by its delay.", ["tier"])
BOUND: Final = Gauge("waybill_consumer_bound", "1 for each event type that the queue is bound for.", ["type"])
for _tier in RETRY_TIERS:
    RETRIES.labels(_tier)  # exports a zero, without which Prometheus would miss the first increment

CAUSE_HEADER: Final = "x-waybill-cause"
_OUTAGE_PAUSE: Final = 1.0
_TIMEOUTS_TO_SUSPECT: Final = 3
"""Timeouts in a row after which the batch's own statements are suspected instead of the database."""
_TIER_TIMEOUT: Final = 20.0
"""Seconds; shorter than the time a process has to stop."""


async def consume(settings: ServiceSettings, health: Health, stop: asyncio.Event, handlers: EventHandlers) -> None:
    """The `consume` role: runs until `stop`, through outages of PostgreSQL and RabbitMQ."""
    columns = [inbox.default_partition.c.received_at, parked.parked_messages.c.resolved_at]
    columns += [aggregate_versions.c.known_since] if handlers.in_order else []
    async with (
        Database(settings, role="consume") as database,
        measuring_parked_messages(database.endpoint, f"{settings.service}-consume-backlog"),
        deleting_expired(database, columns, timedelta(days=settings.outbox_retention_days)),
    ):
        await Consumer(settings, database, handlers, health).run(stop)


class Consumer:
    def __init__(self, settings: ServiceSettings, database: Database, handlers: EventHandlers, health: Health) -> None:
        self._service = settings.service
        self._queue = f"{settings.service}.inbound"
        self._amqp_url = settings.amqp_url.get_secret_value()
        self._delays = settings.retry_delays
        self._database = database
        self._handlers = handlers
        self._partitions = settings.queue_partitions
        self._receiver: Receiver | None = None
        self._has_old_queues = False
        health.add("broker", self._check)
        health.add("postgres", database.ping)

    async def _check(self) -> None:
        receiver = self._receiver
        if receiver is None or not (receiver.is_attached or receiver.stands_by):
            raise ConnectionError("not attached to its queue")

    async def run(self, stop: asyncio.Event) -> None:
        await broker.run_with_reconnect(lambda: self._session(stop), stop, what=self._queue)

    async def _session(self, stop: asyncio.Event) -> None:
        lost = asyncio.Event()
        async with (
            broker.connect(self._amqp_url, f"{self._service}-consume") as amqp,
            kept_declared(lambda: self._declare(amqp)),
            broker.connect(self._amqp_url, f"{self._service}-consume-publish") as out,
        ):
            publisher = await broker.raw_channel(out, confirms=True)
            publisher.closing.add_done_callback(lambda _: lost.set())

            async def process(batch: Sequence[DeliveredMessage], received: Deliveries) -> None:
                await self._settle(batch, received, publisher, stop)

            bindings, count = self._handlers.bindings, self._partitions
            self._receiver = receiver = Receiver(amqp, self._service, bindings, count=count, process=process, lost=lost)
            releasing = partial(
                deferred.keep_releasing, self._database, self._queue, publisher, self._delays, self._is_attached
            )
            try:
                async with (
                    background(*[releasing] * bool(self._handlers.in_order)),
                    kept_declared(receiver.share, interval=SHARING_INTERVAL),
                ):
                    while not (receiver.is_attached or stop.is_set() or lost.is_set()):
                        await receiver.attach(self._is_ready_to_receive, stop)
                    if receiver.is_attached:
                        await receiver.receive(stop)
            finally:
                self._receiver = None
            if lost.is_set():
                raise ConnectionError("the broker cancelled a consumer or closed a channel")
            # Deliveries that were not processed return to the queue in order when the connection closes. Hundreds
            # returned by nack came out of a quorum queue in another order (RabbitMQ 3.10).

    async def _is_ready_to_receive(self) -> bool:
        """Whether the database is available.

        A message that is received in an outage would be held, and each connection lost meanwhile (by a restart, or
        after `LONGEST_HOLD`) would count against it.
        """
        if self._partitions > 1 and self._has_old_queues:
            return False  # which would return messages to a queue that is not in use
        try:
            await self._database.ping()
            await inbox.maintain(self._database.endpoint)  # so that today's rows find their partition
            if self._handlers.in_order:
                async with self._database.transaction() as session:
                    await keep_order(session, self._queue, self._handlers.in_order)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the database may be mended
            log.warning("database unavailable, not attached", queue=self._queue, error=type(error).__name__)
            return False
        return True

    def _is_attached(self) -> bool:
        return self._receiver is not None and self._receiver.is_attached

    async def _declare(self, amqp: AbstractConnection) -> None:
        self._has_old_queues = await declare_queues(amqp, self._service)
        if self._receiver is not None:
            await self._receiver.keep_bound()
        for event_type in self._handlers.types:
            BOUND.labels(event_type).set(1)
            RECEIVED.labels(event_type)  # exports a zero, which differs from a type that this consumer ignores
        if self._has_old_queues:
            log.warning("retry queues have the arguments of release 0.1.0: run `queues --move`", queue=self._queue)

    async def _settle(
        self,
        batch: Sequence[DeliveredMessage],
        received: Deliveries,
        publisher: Channel,
        stop: asyncio.Event,
    ) -> None:
        """Processes the batch and acknowledges it. Returns without acknowledging when stopped in an outage."""
        deliveries = [
            decode_delivery(message, self._queue, self._handlers, has_old_queues=self._has_old_queues)
            for message in batch
        ]
        named = [delivery.named for delivery in deliveries if delivery.event_id]
        history.note("delivered", named, consumer=self._queue)
        timeouts = 0
        while not received.lost.is_set():
            try:
                await self._process(deliveries, received, publisher, suspect=timeouts >= _TIMEOUTS_TO_SUSPECT)
                await received.acknowledge(batch)
                history.note("acknowledged", named, consumer=self._queue)
            except Exception as error:
                if not is_outage(error):
                    raise
                received.check_hold()
                timeouts = timeouts + 1 if ran_out_of_time(error) else 0
                # The database, or a retry queue that did not confirm in time.
                log.warning("server unavailable, holding the batch", error=type(error).__name__, held=len(batch))
                await first_of(stop, within=_OUTAGE_PAUSE)
                if stop.is_set():
                    return
            else:
                return

    async def _process(
        self, deliveries: Sequence[DecodedDelivery], received: Deliveries, publisher: Channel, *, suspect: bool
    ) -> None:
        """Processes all in one transaction or, if that fails, each in its own. Retries or parks what fails then."""
        received.check_hold()
        try:
            await process_batch(self._database, self._queue, self._handlers, deliveries)
        except Exception as error:
            if is_outage(error):
                if not (suspect and ran_out_of_time(error)):
                    raise
                await self._database.ping()  # raises in a real outage
            if len(deliveries) == 1:
                with deliveries[0].traced():
                    await self._retry_or_park(deliveries[0], error, publisher)
            else:
                for delivery in deliveries:
                    await self._process([delivery], received, publisher, suspect=suspect)

    async def _retry_or_park(self, delivery: DecodedDelivery, error: Exception, publisher: Channel) -> None:
        attempt, cause = delivery.count(ATTEMPT_HEADER), f"{type(error).__name__}: {error}"[:500]
        if attempt < len(RETRY_TIERS) and not is_unstorable(error):
            async with self._database.transaction() as session:
                # Marks this version as missing, so that later events of the aggregate are deferred.
                await advance(session, self._queue, delivery.up_to(delivery.version - 1))
            headers = {ATTEMPT_HEADER: attempt + 1, CAUSE_HEADER: cause}
            if await self._send_to_tier(attempt, delivery, headers, publisher):
                log.warning("handler failed, will retry", queue=self._queue, attempt=attempt + 1, exc_info=error)
                HANDLED.labels("retried").inc()
                history.note("retried", [delivery.named] * bool(delivery.event_id), consumer=self._queue)
                return
        is_parked = await self._park(delivery, cause, attempts=attempt + 1)
        outcome = "parked" if is_parked else "duplicate"
        history.note(outcome, [delivery.named] * bool(delivery.event_id), consumer=self._queue)
        HANDLED.labels(outcome).inc()
        if is_parked:
            log.error("message parked", queue=self._queue, attempts=attempt + 1, exc_info=error)

    async def _send_to_tier(
        self, tier: int, delivery: DecodedDelivery, headers: dict[str, Any], publisher: Channel
    ) -> bool:
        """Sends it to a retry queue. Returns False if its properties cannot be sent."""
        # A copy: the received message stays unchanged for another attempt or for parking.
        properties = copy(delivery.message.header.properties)
        properties.expiration = str(int(self._delays[tier] * 1000))
        if not broker.prepare_for_resending(properties, headers):
            return False
        label = RETRY_TIERS[tier]
        await publisher.basic_publish(
            delivery.message.body,
            exchange=own_exchange(self._service),
            routing_key=f"{self._queue}.retry.{label}",
            properties=properties,
            mandatory=True,
            timeout=_TIER_TIMEOUT,
        )
        RETRIES.labels(label).inc()
        return True

    async def _park(self, delivery: DecodedDelivery, cause: str, *, attempts: int) -> bool:
        history.note("parking", [delivery.named] * bool(delivery.event_id), consumer=self._queue)
        async with self._database.transaction() as session:
            # Later events need not wait for it. First, as in a batch, so that no two of these wait for each other.
            await advance(session, self._queue, delivery.up_to(delivery.version))
            return await parked.park(
                session, self._queue, delivery.message, cause, attempts=attempts, event_id=delivery.event_id
            )
