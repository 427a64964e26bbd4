"""Publishes rows of the outbox with confirms, and slows down for the event types that the broker refuses.

A broker refuses a message as a whole if one bound queue refuses it, and by then the other queues have it: whatever is
repeated is a copy for all of them. So after a refusal one event of the type is tried, with growing pauses, and each
confirmed batch doubles the next. A new process begins with one event as well, so that a crash loop repeats no batch.
"""

import asyncio
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, Final

import structlog
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from prometheus_client import Counter, Histogram

from common.messaging.broker import BROKER_ERRORS
from common.messaging.cloudevents import encode, exchange_of
from common.messaging.confirmed_publish import ConfirmedPublish
from common.messaging.message_spans import publishing
from common.messaging.replay import envelope
from common.observability import history

log = structlog.get_logger(__name__)

CONFIRM: Final = Histogram(
    "waybill_publish_confirm_seconds",
    "From an event's publishing to the broker's confirm.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
CONFIRMED: Final = Counter("waybill_publish_confirmed_total", "Events confirmed by the broker.", ["type"])
REFUSED: Final = Counter("waybill_publish_refused_total", "Events refused or not confirmed in time.", ["type"])

_CONFIRM_TIMEOUT: Final = 10.0
_TURN: Final = 1.0
"""Seconds that a worker waits, in its transaction, for another one that tries a type."""
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 30.0
_MOST: Final = 1024
"""More than a batch has."""
_LONGEST_SUBJECT: Final = 500
"""Characters. No reader accepts more, and the event log's index has its own limit, at which the relay would stop."""
_LARGEST_BODY: Final = 2**24
"""Bytes, RabbitMQ's own limit since 4.0. Beyond it the broker closes the channel, which fails every event in flight."""


@dataclass(slots=True)
class _Pace:
    """How many events of a type are published at once, and from when."""

    most: int = 1
    pause: float = _FIRST_PAUSE
    held_until: float = 0.0

    @property
    def admits(self) -> int:
        return 0 if self.held_until > monotonic() else self.most

    def confirmed(self) -> None:
        self.most, self.pause = min(self.most * 2, _MOST), max(self.pause / 2, _FIRST_PAUSE)

    def refused(self) -> None:
        self.most, self.held_until = 1, monotonic() + self.pause
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)


def named(row: Any) -> tuple[Any, str, int]:
    """Id, subject and version of an event, for its history."""
    return row["event_id"], row["subject"], row["version"]


class Unconfirmed(TimeoutError):
    """The broker did not confirm in time: the outcome is unknown, and the channel's later answers are not wanted."""


class Publisher:
    """Publishes a service's events. It outlives connections, because a refusal can cost one.

    Workers share it: what one of them learns of a type applies to all. They take turns while a type is tried.
    """

    def __init__(self, service: str) -> None:
        self._exchange = exchange_of(service)
        self._paces: defaultdict[str, _Pace] = defaultdict(_Pace)
        self._trying = asyncio.Lock()

    def held(self) -> dict[str, float]:
        """The refused types, with the seconds until one event of each may be tried again."""
        now = monotonic()
        return {event: pace.held_until - now for event, pace in self._paces.items() if pace.held_until > now}

    async def publish(
        self, channel: ConfirmedPublish, rows: Sequence[Any]
    ) -> tuple[list[int], dict[int, Exception], Exception | None]:
        """Publishes as many rows as their types' paces allow: one unconfirmed per aggregate, aggregates concurrently.

        Returns the ids that the broker confirmed, the rows of which no message can be made, with their errors, and the
        failure of the connection. Any other row that is not confirmed has an unknown outcome, stays in the outbox, and
        is published again with the same id. Later events of its aggregate wait for it.
        """
        if all(self._paces[event_type].most == _MOST for event_type in {row["type"] for row in rows}):
            return await self._publish(channel, rows)
        try:
            async with asyncio.timeout(_TURN):
                await self._trying.acquire()
        except TimeoutError:
            return [], {}, None
        try:
            return await self._publish(channel, rows)
        finally:
            self._trying.release()

    async def _publish(
        self, channel: ConfirmedPublish, rows: Sequence[Any]
    ) -> tuple[list[int], dict[int, Exception], Exception | None]:
        aggregates = self._admitted(rows)
        confirmed: list[Any] = []
        outcomes: Sequence[BaseException | None]
        try:
            async with asyncio.timeout(_CONFIRM_TIMEOUT):
                outcomes = await asyncio.gather(
                    *(self._in_order(channel, aggregate, confirmed) for aggregate in aggregates),
                    return_exceptions=True,
                )
        except TimeoutError:
            outcomes = [Unconfirmed()] * len(aggregates)
        ids = [row["id"] for row in confirmed]
        unconfirmed = self._unconfirmed(aggregates, outcomes, set(ids)) if any(outcomes) else []
        unsendable = {row["id"]: error for row, outcome in unconfirmed if (error := self._own_error(row, outcome))}
        for row, _ in unconfirmed:
            if error := unsendable.get(row["id"]):
                log.error("event cannot be sent", type=row["type"], id=str(row["event_id"]), error=type(error).__name__)
        refused = [(row["type"], error) for row, error in unconfirmed if row["id"] not in unsendable]
        self._adjust(Count(row["type"] for row in confirmed), refused)
        failures = (error for _, error in refused if isinstance(error, BROKER_ERRORS))
        return ids, unsendable, next((error for error in failures if not isinstance(error, DeliveryError)), None)

    def _admitted(self, rows: Sequence[Any]) -> list[list[Any]]:
        admitted: Count[str] = Count()
        aggregates: dict[str, list[Any]] = {}
        waiting: set[str] = set()
        for row in rows:
            event_type, subject = row["type"], row["subject"]
            if subject not in waiting and admitted[event_type] < self._paces[event_type].admits:
                admitted[event_type] += 1
                aggregates.setdefault(subject, []).append(row)
            else:
                waiting.add(subject)
        return list(aggregates.values())

    async def _in_order(self, channel: ConfirmedPublish, aggregate: list[Any], confirmed: list[Any]) -> None:
        for row in aggregate:
            sent, names = perf_counter(), [named(row)]
            with publishing(row["type"], row["event_id"], row["traceparent"]) as span:
                body, properties = _message(row, span.traceparent)
                history.note("publishing", names)
                await channel.publish(body, exchange=self._exchange, routing_key=row["type"], properties=properties)
            CONFIRM.observe(perf_counter() - sent)
            confirmed.append(row)
            history.note("confirmed", names)

    @staticmethod
    def _unconfirmed(
        aggregates: list[list[Any]], outcomes: Sequence[BaseException | None], confirmed: set[int]
    ) -> list[tuple[Any, Exception]]:
        """Each aggregate's first event that was not confirmed, and why."""
        return [
            (next(row for row in aggregate if row["id"] not in confirmed), outcome)
            for aggregate, outcome in zip(aggregates, outcomes, strict=True)
            if isinstance(outcome, Exception) and aggregate[-1]["id"] not in confirmed
        ]

    def _own_error(self, row: Any, outcome: Exception) -> Exception | None:
        """The row's own error, by which no message can be made of it. None if the outcome has another cause."""
        if isinstance(outcome, BROKER_ERRORS):
            return None
        try:
            body, properties = _message(row, row["traceparent"])
            Basic.Publish(exchange=self._exchange, routing_key=row["type"]).marshal()
            ContentHeader(body_size=len(body), properties=properties).marshal()
        except Exception as error:  # noqa: BLE001 - whatever it is, it happens without a broker
            return error
        return None

    def _adjust(self, confirmed: Count[str], unconfirmed: list[tuple[str, Exception]]) -> None:
        """Counts what was confirmed and refused, and sets the pace of each type accordingly."""
        refused: Count[str] = Count()
        for event_type, error in unconfirmed:
            if isinstance(error, DeliveryError | TimeoutError) or not isinstance(error, BROKER_ERRORS):
                refused[event_type] += 1
            self._paces[event_type].most = 1
        for event_type in confirmed.keys() - {event_type for event_type, _ in unconfirmed}:
            self._paces[event_type].confirmed()
        for event_type, count in confirmed.items():
            CONFIRMED.labels(event_type).inc(count)
        for event_type, count in refused.items():
            REFUSED.labels(event_type).inc(count)
            # AMQP does not say which queue it was.
            error = next(error for failed, error in unconfirmed if failed == event_type)
            pause = self._paces[event_type].pause
            log.warning("event refused", type=event_type, events=count, error=type(error).__name__, pause=pause)
            self._paces[event_type].refused()


def _message(row: Any, traceparent: str | None) -> tuple[bytes, Basic.Properties]:
    body, properties = encode(envelope(row, traceparent))
    if len(row["subject"]) > _LONGEST_SUBJECT:
        raise ValueError(f"the subject has more than {_LONGEST_SUBJECT} characters")
    if len(body) > _LARGEST_BODY:
        raise ValueError(f"the body has more than {_LARGEST_BODY} bytes")
    return body, properties
