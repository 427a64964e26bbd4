"""The spans of requests and calls that a collector receives, and what they must not hold."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from common.observability.otel import recording
from common.observability.spans import span
from common.observability.trace import current_request_id, current_traceparent, traced
from common.runtime.health import Health
from common.security.service_client import http_client
from common.settings import ServiceSettings
from common.testing.api_client import api_client
from common.testing.otlp_collector import Collector
from common.web import ApiRouter, create_api

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-2] + "00"


def api(settings: ServiceSettings) -> Any:
    router = ApiRouter()

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
    trace_id = secrets.token_hex(16)  # new: the metrics of the process hold the requests of other tests too
    parent = f"00-{trace_id}-00f067aa0ba902b7-01"
    with recording("shop", "api"):
        async with api(offline) as http:
            metrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
            answer = await http.get("/fails/ada?email=a@b.example", headers={"traceparent": parent})
            await http.get("/nobody@home.example")
            for probe in ("/health", "/health/ready"):
                await http.get(probe)
            shown = (await http.get("/metrics", headers=metrics)).text
    failed, unmatched = sorted(collector.spans, key=lambda span: span.started)
    assert (failed.service, failed.role, failed.kind) == ("shop", "api", "server")
    assert failed.name == "GET /fails/{name}"
    assert (failed.trace_id, failed.parent_id) == (trace_id, parent[36:52])
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
    # The metric has an example that names the trace.
    [example] = [line for line in shown.splitlines() if f'# {{trace_id="{trace_id}"}}' in line]
    assert 'route="/fails/{name}"' in example


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


async def test_a_call_is_a_span_and_the_parent_of_the_peers(collector: Collector, offline: Any) -> None:
    with recording("shop", "api"):
        async with api(offline) as peer, http_client(peer._transport) as http:
            await http.get("http://peer.invalid:8443/fails/1?token=secret", headers={"traceparent": UNSAMPLED})
            with contextlib.suppress(httpx.ConnectError):
                await http_client().get("http://127.0.0.1:9/unavailable")
    peer_span, call, failed_call = sorted(collector.spans, key=lambda span: span.kind != "server")
    assert (call.kind, call.name) == ("client", "GET")
    assert (peer_span.trace_id, peer_span.parent_id) == (call.trace_id, call.span_id)
    assert call.attributes == {
        "http.request.method": "GET",
        "server.address": "peer.invalid",
        "server.port": 8443,
        "url.full": "http://peer.invalid:8443/fails/1",
        "http.response.status_code": 500,
        "error.type": "500",
    }
    assert (failed_call.is_error, failed_call.attributes["error.type"]) == (True, "ConnectError")


async def test_log_lines_and_calls_within_a_span_belong_to_it(collector: Collector) -> None:
    with recording("shop", "deliver"), traced(request_id="event-1", traceparent=PARENT):
        with span("deliver mail", "client", {}) as attempt:
            assert (current_request_id(), current_traceparent()) == ("event-1", attempt.traceparent)
        assert current_traceparent() == PARENT
    [exported] = collector.spans
    assert attempt.traceparent == f"00-{exported.trace_id}-{exported.span_id}-01"
    assert exported.parent_id == PARENT[36:52]


@pytest.mark.slow
@pytest.mark.parametrize("collectors", [0, 1], ids=["none listens", "one never answers"])
async def test_an_unavailable_collector_delays_a_stop_by_seconds_and_harms_nothing(
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
from common.cli import roles
with roles.recording("shop", "relay") as nothing:
    import common.messaging.relay, common.messaging.consumer
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
