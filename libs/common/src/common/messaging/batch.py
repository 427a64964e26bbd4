"""A batch of deliveries in one transaction: inbox rows, handlers' effects, and messages to park immediately.

Measured by `bench/backbone.py` on two shared cores with a batch handler (`on_batch`): 1.4 to 1.8 times the messages
per second of plain aio-pika (prefetch 50, one acknowledgement each), with 0.95 of its processor time. With one
statement per event the throughput was 0.5 of it.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final

from aiormq.abc import DeliveredMessage
from prometheus_client import Counter, Histogram
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, utc_now
from common.messaging import aggregate_versions, deferred, parked
from common.messaging.aggregate_versions import UNKNOWN, Aggregate
from common.messaging.cloudevents import Undecodable, decode
from common.messaging.deferred import DEFERRAL_HEADER, WAITED
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.inbox import first_deliveries
from common.messaging.message_spans import processing
from common.messaging.topology import RETRY_TIERS, is_authentic, own_exchange
from common.observability import history
from common.observability.log_limit import limited_logger
from common.observability.trace import traced

log = limited_logger(__name__)

HANDLED: Final = Counter("waybill_consumer_messages_total", "Deliveries by outcome.", ["outcome"])
RECEIVED: Final = Counter("waybill_consumer_received_total", "Deliveries of events that have a handler.", ["type"])
FORGED: Final = Counter("waybill_consumer_forged_total", "Events from another sender than their type names.")
GAPS: Final = Counter(
    "waybill_consumer_gaps_total", "Events processed although an earlier one of their aggregate is missing."
)
LAG: Final = Histogram(
    "waybill_consumer_lag_seconds",
    "From an event's occurrence to the commit of its effect.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 120, 300, 600, 3600),
)
for _outcome in ("processed", "duplicate", "retried", "deferred", "parked", "discarded"):
    HANDLED.labels(_outcome)  # exports a zero, without which Prometheus would miss the first increment

ATTEMPT_HEADER: Final = "x-waybill-attempt"
UNSENDABLE: Final = "an earlier event is missing, and this one cannot be sent again after it"


@dataclass(frozen=True, slots=True)
class DecodedDelivery:
    """A delivery with its event, or with the cause why it has none, or with neither if its type has no handler."""

    message: DeliveredMessage
    event: Received[BaseModel] | None = None
    cause: str | None = None
    aggregate: Aggregate | None = None
    """Set where this consumer keeps the order of the event's aggregate."""
    version: int = 0
    subject: str = ""
    event_id: str | None = None
    """Set for an event that its own producer sent, whether or not this consumer can process it."""

    def up_to(self, version: int) -> dict[Aggregate, int]:
        """The argument by which `advance` records that version. Empty where no order is kept."""
        return {} if self.aggregate is None else {self.aggregate: version}

    def is_done(self, queue: str) -> bool:
        """Whether it is processed with its batch. Of a type without a handler, a copy proves nothing about a parked
        message, unless it was replayed.
        """
        replayed = self.message.exchange == own_exchange(queue.removesuffix(".inbound"))
        return self.cause is None and (self.event is not None or replayed)

    @property
    def named(self) -> tuple[str, str, int]:
        """Id, subject and version of the event, for its history."""
        return self.event_id or "", self.subject, self.version

    def count(self, header: str) -> int:
        """The counter in one of our headers, limited to its largest honest value, because a sender can set it, too."""
        value = (self.message.header.properties.headers or {}).get(header, 0)
        return min(value, len(RETRY_TIERS)) if isinstance(value, int) and value >= 0 else 0

    def traced(self) -> AbstractContextManager[object]:
        """Adds the message's ids to the log lines of the block, even if it is not an event."""
        properties = self.message.header.properties
        parent = (properties.headers or {}).get("traceparent")
        return traced(request_id=properties.message_id, traceparent=parent if isinstance(parent, str) else None)


def decode_delivery(
    message: DeliveredMessage, queue: str, handlers: EventHandlers, *, has_old_queues: bool = False
) -> DecodedDelivery:
    """Decodes and checks one delivery of `queue` or of its parked queue. Never raises."""
    if message.routing_key == f"{queue}.parked":
        return DecodedDelivery(message, cause=parked.DELIVERY_LIMIT)
    try:
        envelope = decode(message.body, message.header.properties)
    except Undecodable as error:
        return DecodedDelivery(message, cause=str(error))
    if not is_authentic(message.exchange, envelope.type, queue.removesuffix(".inbound")) and not (
        has_old_queues and _returned_by_old_queue(message, queue)
    ):
        FORGED.inc()
        log.error("forged event", queue=queue, type=envelope.type, exchange=message.exchange)
        return DecodedDelivery(message, cause=parked.FORGED)
    if envelope.type in handlers:
        RECEIVED.labels(envelope.type).inc()
    sent = DecodedDelivery(
        message,
        aggregate=handlers.aggregate_in_order(envelope),
        version=envelope.version,
        subject=envelope.subject,
        event_id=str(envelope.id),
    )
    try:
        return replace(sent, event=handlers.decode(envelope))
    except Undecodable as error:
        return replace(sent, cause=str(error))


def _returned_by_old_queue(message: DeliveredMessage, queue: str) -> bool:
    """Whether a retry queue of release 0.1.0 returned it, which used the default exchange.

    The broker writes `x-death`, but a sender can, too: accepted only until the queues are moved.
    """
    deaths = (message.header.properties.headers or {}).get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    return message.exchange == "" and str(last.get("queue")).startswith(f"{queue}.retry.")


async def process_batch(
    database: Database, queue: str, handlers: EventHandlers, deliveries: Sequence[DecodedDelivery]
) -> None:
    """Processes the batch in one transaction. Defers the deliveries of which an earlier version is missing."""
    candidates = [delivery.event for delivery in deliveries if delivery.event is not None]
    async with processing(queue, candidates) as received, database.transaction() as session:
        known = await aggregate_versions.advance(
            session, queue, {d.aggregate: UNKNOWN for d in deliveries if d.aggregate}
        )
        earliest = {d.aggregate: d.version for d in reversed(deliveries) if d.aggregate}
        if unseen := [each for each, version in earliest.items() if known[each] == UNKNOWN and version > 1]:
            known |= dict.fromkeys(await aggregate_versions.seen_from_birth(session, queue, unseen), 0)
        on_time, early = _split_by_order(deliveries, known, queue)
        await aggregate_versions.advance(session, queue, known)
        await deferred.defer(session, queue, ((d.aggregate, d.version, d.message) for d in early if d.aggregate))
        events = [delivery.event.id for delivery in on_time if delivery.event is not None]
        new = await first_deliveries(session, queue, events)
        # Each event at its first position of those on time: a repetition may come after later ones of its aggregate.
        by_id = {event.id: event for event in reversed(received)}
        firsts = dict.fromkeys(d.event.id for d in on_time if d.event is not None and d.event.id in new)
        processed = [by_id[event_id] for event_id in firsts]
        effects = [(event.id, event.subject, event.version) for event in processed]
        in_order = {d.event.id for d in on_time if d.event is not None and d.aggregate is not None}
        history.note("parking", (d.named for d in on_time if d.cause is not None and d.event_id), consumer=queue)
        history.note("ignoring", (d.named for d in on_time if d.event is None and d.cause is None), consumer=queue)
        history.note("processing", (each for each in effects if each[0] not in in_order), consumer=queue)
        history.note("processing in order", (each for each in effects if each[0] in in_order), consumer=queue)
        await handlers.handle(session, *processed)
        await parked.close_processed(
            session,
            queue,
            ((d.message, d.event_id) for d in on_time if d.is_done(queue)),
        )
        undecodable, discarded = await _park_unreadable(session, queue, on_time)
    history.note("processed", effects, consumer=queue)
    parked_now = {id(delivery) for delivery in undecodable}
    repeated = (
        d.named
        for d in on_time
        if (d.event is not None and d.event.id not in firsts)
        or (d.cause is not None and d.event_id and id(d) not in parked_now)
    )
    history.note("duplicate", repeated, consumer=queue)
    history.note("ignored", (d.named for d in on_time if d.event is None and d.cause is None), consumer=queue)
    history.note("deferred", (d.named for d in early), consumer=queue)
    history.note("parked", (d.named for d in undecodable if d.event_id), consumer=queue)
    HANDLED.labels("processed").inc(len(processed))
    HANDLED.labels("duplicate").inc(len(events) - len(processed))
    HANDLED.labels("deferred").inc(len(early))
    HANDLED.labels("parked").inc(len(undecodable))
    HANDLED.labels("discarded").inc(discarded)
    now = utc_now()
    for event in processed:
        LAG.observe(max(0.0, (now - event.time).total_seconds()))


async def _park_unreadable(
    session: AsyncSession, queue: str, deliveries: Sequence[DecodedDelivery]
) -> tuple[list[DecodedDelivery], int]:
    """Parks those that have a cause instead of an event. Returns what was parked, and how many were discarded."""
    unreadable = [delivery for delivery in deliveries if delivery.cause is not None]
    forged = [delivery for delivery in unreadable if delivery.cause == parked.FORGED]
    if forged and not await parked.keeps_forged(session, queue):
        unreadable = [delivery for delivery in unreadable if delivery.cause != parked.FORGED]
        log.error("forged events discarded, too many today", queue=queue, count=len(forged))
    else:
        forged = []
    undecodable = []
    for delivery in unreadable:
        attempts, event_id = delivery.count(ATTEMPT_HEADER), delivery.event_id
        cause = delivery.cause or ""
        if not await parked.park(session, queue, delivery.message, cause, attempts=attempts, event_id=event_id):
            continue
        undecodable.append(delivery)
        with delivery.traced():
            # A text of its own: a stranger's flood of these must not use up the lines of failing handlers.
            log.error("unreadable message parked", queue=queue, cause=cause)
    return undecodable, len(forged)


def _split_by_order(
    deliveries: Sequence[DecodedDelivery], known: dict[Aggregate, int], queue: str
) -> tuple[list[DecodedDelivery], list[DecodedDelivery]]:
    """Returns those to process now and those to defer. Advances `known` to the versions of those to process.

    An event that has waited for its predecessor once is processed.
    """
    on_time: list[DecodedDelivery] = []
    early: list[DecodedDelivery] = []
    for delivery in deliveries:
        if delivery.aggregate is not None:
            last = known[delivery.aggregate]
            if last != UNKNOWN and delivery.version > last + 1:
                if delivery.count(DEFERRAL_HEADER) >= WAITED:
                    log.warning(
                        "gap not filled, processing", aggregate=delivery.aggregate, last=last, version=delivery.version
                    )
                    GAPS.inc()
                    history.note("overdue", [delivery.named], consumer=queue)
                elif deferred.is_sendable(delivery.message):
                    early.append(delivery)
                    continue
                else:
                    on_time.append(replace(delivery, event=None, cause=UNSENDABLE))
                    known[delivery.aggregate] = delivery.version
                    continue
            known[delivery.aggregate] = max(last, delivery.version)
        on_time.append(delivery)
    return on_time, early
