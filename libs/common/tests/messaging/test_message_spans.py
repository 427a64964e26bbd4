"""The spans that a collector receives of an event: one for each hop, with its parent."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import Database, new_id, utc_now
from common.messaging.cloudevents import Event
from common.messaging.consumer import Consumer
from common.messaging.event_handlers import EventHandlers, Received
from common.messaging.message_spans import processing
from common.messaging.outbox import record
from common.messaging.relay import relay
from common.observability.otel import recording
from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.api_client import api_client
from common.testing.otlp_collector import Collector, ExportedSpan
from common.testing.plugin import eventually
from common.web import ApiRouter, create_api

POISON = 13


class Sold(Event):
    type: ClassVar[str] = "shop.item.sold.v1"

    number: int


class SoldReader(BaseModel):
    number: int


def api(settings: ServiceSettings, database: Database) -> Any:
    router = ApiRouter()

    @router.post("/items/{number}", status_code=201)
    async def sell(number: int) -> None:
        async with database.transaction() as session:
            await record(session, Sold(number=number), subject=str(new_id()), version=1)

    return api_client(create_api(settings, title="Shop", routers=[router], health=Health()))


def collecting_handlers() -> tuple[EventHandlers, list[Received[Any]]]:
    handlers, seen = EventHandlers(), []

    @handlers.on(Sold.type, SoldReader)
    async def sold(_: AsyncSession, event: Received[SoldReader]) -> None:
        if event.data.number == POISON:
            raise ValueError("thirteen")
        seen.append(event)

    return handlers, seen


@contextlib.asynccontextmanager
async def running(*work: Callable[[asyncio.Event], Any]) -> Any:
    stop = asyncio.Event()
    tasks = [asyncio.ensure_future(one(stop)) for one in work]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


def same(traceparent: str | None, span: ExportedSpan) -> bool:
    return traceparent is not None and traceparent.startswith(f"00-{span.trace_id}-{span.span_id}-")


def children(spans: list[ExportedSpan], parent: ExportedSpan) -> list[ExportedSpan]:
    return [span for span in spans if span.parent_id == parent.span_id]


async def test_an_event_is_one_trace_from_the_request_to_the_commit_of_its_effect(
    collector: Collector, settings: ServiceSettings, database: Database
) -> None:
    handlers, seen = collecting_handlers()
    with recording("shop", "all"):
        health = Health()
        consumer = Consumer(settings, database, handlers, health)
        async with running(lambda stop: relay(settings, Health(), stop), consumer.run):
            await eventually(lambda: _ready(health), within=30)
            async with api(settings, database) as http:
                for number in range(5):
                    (await http.post(f"/items/{number}")).raise_for_status()
            await eventually(lambda: _processed(database, 5), within=30)
    requests = [span for span in collector.spans if span.kind == "server"]
    assert len(requests) == len({span.trace_id for span in requests}) == 5
    for request in requests:
        spans = collector.of_trace(request.trace_id)
        [published] = children(spans, request)
        [processed] = children(spans, published)
        assert spans == [request, published, processed]
        event = next(event for event in seen if str(event.id) == processed.attributes["messaging.message.id"])
        assert same(event.traceparent, processed)
        assert processed.links == [(published.trace_id, published.span_id)]
        assert (published.kind, processed.kind) == ("producer", "consumer")
        assert published.name == "publish shop.events:shop.item.sold.v1"
        assert processed.name == "process shop.events:shop.item.sold.v1:shop.inbound"
        assert processed.attributes.pop("waybill.batch_size") in range(1, 6)
        assert processed.attributes == {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "shop.events:shop.item.sold.v1:shop.inbound",
            "messaging.rabbitmq.destination.routing_key": "shop.item.sold.v1",
            "messaging.message.id": str(event.id),
        }
        assert not any(span.is_error for span in spans)


async def test_only_the_failing_event_of_a_batch_gets_error_spans(
    collector: Collector, settings: ServiceSettings, database: Database
) -> None:
    handlers, _ = collecting_handlers()
    with recording("shop", "all"):
        health = Health()
        consumer = Consumer(settings, database, handlers, health)
        async with running(lambda stop: relay(settings, Health(), stop), consumer.run):
            await eventually(lambda: _ready(health), within=30)
            async with api(settings, database) as http:
                for number in (1, POISON, 2):
                    (await http.post(f"/items/{number}")).raise_for_status()
            await eventually(lambda: _parked(database), within=30)
    processed = [span for span in collector.spans if span.kind == "consumer"]
    assert len([span for span in processed if not span.is_error]) == 2
    failed = [span for span in processed if span.is_error]
    # The first attempt and three retries. An attempt that failed as part of a batch is repeated alone.
    assert 4 <= len(failed) <= 8
    assert len({(span.trace_id, span.parent_id) for span in failed}) == 1
    assert {span.attributes["error.type"] for span in failed} == {"ValueError"}
    assert "thirteen" not in str(collector.spans)


async def _ready(health: Health) -> bool:
    """Whether the consumer's queue is bound: an event published earlier would not reach it."""
    return (await health.ready())[0]


async def _processed(database: Database, count: int) -> bool:
    async with database.transaction() as session:
        return bool(await session.scalar(text("SELECT count(*) FROM inbox")) == count)


async def _parked(database: Database) -> bool:
    async with database.transaction() as session:
        return bool(await session.scalar(text("SELECT count(*) FROM parked_messages")) == 1)


def received(number: int) -> Received[Any]:
    traceparent = f"00-{number:032x}-{number:016x}-01"
    return Received(new_id(), Sold.type, "item", 1, utc_now(), SoldReader(number=number), traceparent)


async def test_events_processed_together_stay_in_their_own_traces(collector: Collector) -> None:
    with recording("shop", "consume"):
        async with processing("shop.inbound", [received(1), received(2)]) as events:
            assert not collector.spans
    for number, span in enumerate(sorted(collector.spans, key=lambda one: one.trace_id), 1):
        assert same(events[number - 1].traceparent, span)
        assert (span.trace_id, span.parent_id) == (f"{number:032x}", f"{number:016x}")
        assert span.links == [(span.trace_id, span.parent_id)]
        assert span.attributes["waybill.batch_size"] == 2
