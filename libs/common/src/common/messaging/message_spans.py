"""Spans of publishing and processing an event, by OpenTelemetry's conventions for RabbitMQ."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

from pydantic import BaseModel

from common.messaging.cloudevents import exchange_of, producer_of
from common.messaging.event_handlers import Received
from common.observability.spans import Span, are_recorded, span


def publishing(event_type: str, event_id: UUID, parent: str | None) -> Span:
    """From publishing an event to the broker's confirm. Its context is sent with the event."""
    if not are_recorded():
        return Span(parent)
    destination = f"{exchange_of(producer_of(event_type))}:{event_type}"
    attributes = _attributes("publish", "send", destination, event_type, event_id)
    return span(f"publish {destination}", "producer", attributes, parent)


@asynccontextmanager
async def processing(queue: str, events: Sequence[Received[BaseModel]]) -> AsyncIterator[Sequence[Received[BaseModel]]]:
    """Yields the events, each with the context of its own span. The spans end with the block, after the commit.

    Events of one batch belong to unrelated traces: each span is part of its event's trace, and linked to the publishing
    span as the conventions require. A failed batch of several leaves no spans: each event is then processed alone.
    """
    if not are_recorded():
        yield events
        return
    spans = [_process(queue, event, len(events)) for event in events]
    try:
        yield [replace(event, traceparent=each.traceparent) for event, each in zip(events, spans, strict=True)]
    except Exception as error:
        if len(spans) == 1:
            spans[0].fail(type(error).__qualname__)
            spans[0].end()
        raise
    for each in spans:
        each.end()


def _process(queue: str, event: Received[BaseModel], batch_size: int) -> Span:
    destination = f"{exchange_of(producer_of(event.type))}:{event.type}:{queue}"
    attributes = _attributes("process", "process", destination, event.type, event.id)
    attributes["waybill.batch_size"] = batch_size
    links = [event.traceparent] if event.traceparent else []
    return span(f"process {destination}", "consumer", attributes, event.traceparent, links)


def _attributes(name: str, operation: str, destination: str, routing_key: str, event_id: UUID) -> dict[str, str | int]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": name,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": routing_key,
        "messaging.message.id": str(event_id),
    }
