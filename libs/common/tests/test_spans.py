"""What a collector is told: each hop of an event's way with its parent, and nothing that is not meant for it."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from common.consumer import Consumer
from common.database import Database, new_id, utc_now
from common.events import Event
from common.handlers import Handlers, Received
from common.health import Health
from common.http_client import http_client
from common.logs import current_request_id, current_traceparent, traced
from common.message_spans import processing
from common.otel import recording
from common.outbox import record
from common.relay import relay
from common.settings import ServiceSettings
from common.spans import span
from common.testing import eventually
from common.testing_http import api_client
from common.testing_spans import Collector, ExportedSpan
from common.web import ApiRouter, create_api

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-2] + "00"
POISON = 13


class Sold(Event):
    type: ClassVar[str] = "shop.item.sold.v1"

    number: int


class SoldReader(BaseModel):
    number: int


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


def api(settings: ServiceSettings, database: Database | None = None) -> Any:
    router = ApiRouter()

    @router.post("/items/{number}", status_code=201)
    async def sell(number: int) -> None:
        assert database is not None
        async with database.transaction() as session:
            await record(session, Sold(number=number), subject=str(new_id()), version=1)

    @router.get("/fails/{name}")
    async def fails(name: str) -> None:
        raise ZeroDivisionError(name)

    return api_client(create_api(settings, title="Shop", routers=[router], health=Health()))


@pytest.fixture
def offline() -> ServiceSettings:
    class ShopSettings(ServiceSettings):
        service: ClassVar[str] = "shop"

    nowhere = SecretStr("amqp://nowhere.invalid")
    return ShopSettings(database_url=nowhere, amqp_url=nowhere, public_url="http://gw.invalid", auth_url="http://a")


async def test_a_request_is_a_span_with_its_route_status_and_id(collector: Collector, offline: Any) -> None:
    with recording("shop", "api"):
        async with api(offline) as http:
            metrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
            answer = await http.get("/fails/ada?email=a@b.example", headers={"traceparent": PARENT})
            await http.get("/nobody@home.example")
            for probe in ("/health", "/health/ready"):
                await http.get(probe)
            shown = (await http.get("/metrics", headers=metrics)).text
    failed, unmatched = sorted(collector.spans, key=lambda span: span.started)
    assert (failed.service, failed.role, failed.kind) == ("shop", "api", "server")
    assert failed.name == "GET /fails/{name}"
    assert (failed.trace_id, failed.parent_id) == (PARENT[3:35], PARENT[36:52])
    assert failed.is_error
    assert failed.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/fails/ada",
        "http.route": "/fails/{name}",
        "http.response.status_code": 500,
        "error.type": "500",
        "waybill.request_id": answer.headers["X-Request-ID"],
    }
    assert (unmatched.name, unmatched.parent_id, unmatched.is_error) == ("GET", "", False)
    assert unmatched.attributes["url.path"] == "/[mail]"
    # A figure leads to the trace.
    [example] = [line for line in shown.splitlines() if 'route="/fails/{name}"' in line and " # " in line]
    assert f'# {{trace_id="{failed.trace_id}"}}' in example


@pytest.mark.parametrize(
    ("ratio", "traceparent", "exported"),
    [("1", None, 1), ("0", None, 0), ("1", UNSAMPLED, 0), ("0", PARENT, 1)],
    ids=["new, all", "new, none", "not sampled before", "sampled before"],
)
async def test_a_callers_decision_is_kept_and_new_traces_are_sampled_by_the_ratio(
    collector: Collector, offline: Any, monkeypatch: Any, ratio: str, traceparent: str | None, exported: int
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    with recording("shop", "api"):
        async with api(offline) as http:
            await http.get("/fails/x", headers={"traceparent": traceparent} if traceparent else {})
    assert len(collector.spans) == exported


async def test_a_call_is_a_span_that_the_other_sides_is_part_of(collector: Collector, offline: Any) -> None:
    with recording("shop", "api"):
        async with api(offline) as peer, http_client(peer._transport) as http:
            await http.get("http://peer.invalid:8443/fails/1?token=secret", headers={"traceparent": UNSAMPLED})
            with contextlib.suppress(httpx.ConnectError):
                await http_client().get("http://127.0.0.1:9/away")
    there, calling, away = sorted(collector.spans, key=lambda span: span.kind != "server")
    assert (calling.kind, calling.name) == ("client", "GET")
    assert (there.trace_id, there.parent_id) == (calling.trace_id, calling.span_id)
    assert calling.attributes == {
        "http.request.method": "GET",
        "server.address": "peer.invalid",
        "server.port": 8443,
        "url.full": "http://peer.invalid:8443/fails/1",
        "http.response.status_code": 500,
        "error.type": "500",
    }
    assert (away.is_error, away.attributes["error.type"]) == (True, "ConnectError")


def consumed() -> tuple[Handlers, list[Received[Any]]]:
    handlers, seen = Handlers(), []

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
    handlers, seen = consumed()
    with recording("shop", "all"):
        health = Health()
        consumer = Consumer(settings, database, handlers, health)
        async with running(lambda stop: relay(settings, Health(), stop), consumer.run):
            await eventually(lambda: _ready(health), within=30)
            async with api(settings, database) as http:
                for number in range(5):
                    (await http.post(f"/items/{number}")).raise_for_status()
            await eventually(lambda: _taken(database, 5), within=30)
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
        assert processed.attributes.pop("waybill.taken_together") in range(1, 6)
        assert processed.attributes == {
            "messaging.system": "rabbitmq",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "shop.events:shop.item.sold.v1:shop.inbound",
            "messaging.rabbitmq.destination.routing_key": "shop.item.sold.v1",
            "messaging.message.id": str(event.id),
        }
        assert not any(span.is_error for span in spans)


async def test_of_a_batch_that_fails_only_the_one_at_fault_is_an_error(
    collector: Collector, settings: ServiceSettings, database: Database
) -> None:
    handlers, _ = consumed()
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
    # The first try and three retries; a try on which the whole batch failed may be followed by one alone.
    assert 4 <= len(failed) <= 8
    assert len({(span.trace_id, span.parent_id) for span in failed}) == 1
    assert {span.attributes["error.type"] for span in failed} == {"ValueError"}
    assert "thirteen" not in str(collector.spans)


async def _ready(health: Health) -> bool:
    """The consumer is bound: what is published sooner would not reach it."""
    return (await health.ready())[0]


async def _taken(database: Database, count: int) -> bool:
    async with database.transaction() as session:
        return bool(await session.scalar(text("SELECT count(*) FROM inbox")) == count)


async def _parked(database: Database) -> bool:
    async with database.transaction() as session:
        return bool(await session.scalar(text("SELECT count(*) FROM parked_messages")) == 1)


def received(number: int) -> Received[Any]:
    traceparent = f"00-{number:032x}-{number:016x}-01"
    return Received(new_id(), Sold.type, "item", 1, utc_now(), SoldReader(number=number), traceparent)


async def test_events_taken_together_stay_in_their_own_traces(collector: Collector) -> None:
    with recording("shop", "consume"):
        async with processing("shop.inbound", [received(1), received(2)]) as events:
            assert not collector.spans
    for number, taken in enumerate(sorted(collector.spans, key=lambda one: one.trace_id), 1):
        assert same(events[number - 1].traceparent, taken)
        assert (taken.trace_id, taken.parent_id) == (f"{number:032x}", f"{number:016x}")
        assert taken.links == [(taken.trace_id, taken.parent_id)]
        assert taken.attributes["waybill.taken_together"] == 2


async def test_what_is_done_within_a_span_is_logged_and_asked_for_as_part_of_it(collector: Collector) -> None:
    with recording("shop", "deliver"), traced(request_id="event-1", traceparent=PARENT):
        with span("deliver mail", "client", {}) as attempt:
            assert (current_request_id(), current_traceparent()) == ("event-1", attempt.traceparent)
        assert current_traceparent() == PARENT
    [exported] = collector.spans
    assert same(attempt.traceparent, exported)
    assert exported.parent_id == PARENT[36:52]


@pytest.mark.parametrize("collectors", [0, 1], ids=["nobody listens", "somebody who never answers"])
async def test_a_collector_that_is_away_delays_a_stop_by_seconds_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, offline: Any, collectors: int
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if collectors:
            listener.listen()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        with recording("shop", "api"):
            async with api(offline) as http:
                assert [(await http.get("/fails/x")).status_code for _ in range(10)] == [500] * 10
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 10


LOADED = """
import contextlib, sys
from common import commands
with commands.recording("shop", "relay") as nothing:
    import common.relay, common.consumer
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))))
"""


@pytest.mark.parametrize(
    ("variables", "is_recorded"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_sdk_is_loaded_only_where_a_collector_is_named(variables: dict[str, str], is_recorded: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | variables
    loaded = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, check=True
    )
    assert (loaded.stdout.strip() != "[]") == is_recorded
