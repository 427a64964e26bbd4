"""A batch of deliveries in one transaction: inbox rows, effects, and what has to be parked at once.

Measured by `bench/backbone.py` on two cores shared with much other work, with a handler of batches (`on_batch`): 1.4 to
1.8 of what aio-pika consumes raw (prefetch 50, an ack each), for 0.95 of its processor time. One statement an event
made 0.5.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from aiormq.abc import DeliveredMessage
from prometheus_client import Counter, Histogram
from pydantic import BaseModel

from common.db.database import Database, utc_now
from common.messaging import aggregate_versions, parked
from common.messaging.aggregate_versions import UNKNOWN, Aggregate
from common.messaging.broker import RETRY_TIERS
from common.messaging.cloudevents import Undecodable, decode
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.inbox import first_deliveries
from common.messaging.message_spans import processing
from common.observability.trace import traced

log = structlog.get_logger(__name__)

HANDLED: Final = Counter("waybill_consumer_messages_total", "Deliveries by what became of them.", ["outcome"])
GAPS: Final = Counter("waybill_consumer_gaps_total", "Events taken though one of their aggregate before was missing.")
LAG: Final = Histogram(
    "waybill_consumer_lag_seconds",
    "From an event's occurrence to the commit of its effect.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 120, 300, 600, 3600),
)
for _outcome in ("taken", "duplicate", "retried", "deferred", "parked"):
    HANDLED.labels(_outcome)  # zero from the start: what appears with its first case can't be counted

ATTEMPT_HEADER: Final = "x-waybill-attempt"
DEFERRAL_HEADER: Final = "x-waybill-deferral"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a delivery is: an event, something that nobody handles (neither event nor cause), or unreadable."""

    message: DeliveredMessage
    event: Received[BaseModel] | None = None
    cause: str | None = None
    aggregate: Aggregate | None = None
    """Where its order is kept."""
    version: int = 0

    def up_to(self, version: int) -> dict[Aggregate, int]:
        return {} if self.aggregate is None else {self.aggregate: version}

    def count(self, header: str) -> int:
        """What we wrote into the header, and no more than we could have: anybody may send one."""
        value = (self.message.header.properties.headers or {}).get(header, 0)
        return min(value, len(RETRY_TIERS)) if isinstance(value, int) and value >= 0 else 0

    def traced(self) -> AbstractContextManager[object]:
        """Log lines about the message carry its ids, also where it is no event."""
        properties = self.message.header.properties
        parent = (properties.headers or {}).get("traceparent")
        return traced(request_id=properties.message_id, traceparent=parent if isinstance(parent, str) else None)


def read(message: DeliveredMessage, queue: str, handlers: EventHandlers) -> Reading:
    if message.routing_key == f"{queue}.parked":
        return Reading(message, cause=parked.DELIVERY_LIMIT)
    try:
        envelope = decode(message.body, message.header.properties)
    except Undecodable as error:
        return Reading(message, cause=str(error))
    aggregate = handlers.aggregate_in_order(envelope)
    try:
        return Reading(message, handlers.read(envelope), None, aggregate, envelope.version)
    except Undecodable as error:
        return Reading(message, None, str(error), aggregate, envelope.version)


async def take(database: Database, queue: str, handlers: EventHandlers, readings: Sequence[Reading]) -> list[Reading]:
    """Takes the batch's effects, and returns the readings that came too early: they are to be brought again later."""
    candidates = [reading.event for reading in readings if reading.event is not None]
    async with processing(queue, candidates) as received, database.transaction() as session:
        known = await aggregate_versions.reach(session, queue, {r.aggregate: UNKNOWN for r in readings if r.aggregate})
        on_time, early = _in_order(readings, known)
        await aggregate_versions.reach(session, queue, known)
        events = [reading.event.id for reading in on_time if reading.event is not None]
        new = await first_deliveries(session, queue, events)
        # Where it first came: behind events after it, a repetition would bring it out of order.
        firsts: dict[UUID, Received[BaseModel]] = {}
        for event in received:
            if event.id in new:
                firsts.setdefault(event.id, event)
        taken = list(firsts.values())
        await handlers.handle(session, *taken)
        unreadable = [reading for reading in on_time if reading.cause is not None]
        for reading in unreadable:
            attempts = reading.count(ATTEMPT_HEADER)
            await parked.park(session, queue, reading.message, reading.cause or "", attempts=attempts)
            with reading.traced():
                log.error("message parked", queue=queue, cause=reading.cause)
    HANDLED.labels("taken").inc(len(taken))
    HANDLED.labels("duplicate").inc(len(events) - len(taken))
    HANDLED.labels("parked").inc(len(unreadable))
    now = utc_now()
    for event in taken:
        LAG.observe(max(0.0, (now - event.time).total_seconds()))
    return early


def _in_order(readings: Sequence[Reading], known: dict[Aggregate, int]) -> tuple[list[Reading], list[Reading]]:
    """Those to be taken and those that are too early. Brings `known` up to what is taken.

    An event is too early as long as it could still meet its predecessor in the retry queues.
    """
    on_time, early = [], []
    for reading in readings:
        if reading.aggregate is not None:
            last = known[reading.aggregate]
            if last != UNKNOWN and reading.version > last + 1:
                if reading.count(DEFERRAL_HEADER) < len(RETRY_TIERS):
                    early.append(reading)
                    continue
                log.warning("gap not filled, going on", aggregate=reading.aggregate, last=last, version=reading.version)
                GAPS.inc()
            known[reading.aggregate] = max(last, reading.version)
        on_time.append(reading)
    return on_time, early
