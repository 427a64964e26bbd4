from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from common.runtime.health import Health
from common.runtime.health_endpoints import worker_app
from common.testing.api_client import api_client
from common.web import ApiRouter

router = ApiRouter()


@pytest.fixture(params=["api", "worker"])
async def http(request: pytest.FixtureRequest, serve: Any, health: Health) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router) if request.param == "api" else api_client(worker_app(health)) as client:
        yield client


async def fine() -> None: ...


async def broken() -> None:
    raise ConnectionRefusedError("postgresql://user:secret@host")


async def test_a_process_lives_whatever_its_checks_say(http: httpx.AsyncClient, health: Health) -> None:
    health.add("postgres", broken)
    for path in ("/health", "/health/live"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_names_each_check(http: httpx.AsyncClient, health: Health) -> None:
    health.add("postgres", fine)
    answer = await http.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {"postgres": "ok"}})


async def test_one_failed_check_means_not_ready_and_reveals_no_address(http: httpx.AsyncClient, health: Health) -> None:
    health.add("postgres", fine)
    health.add("broker", broken)
    answer = await http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"postgres": "ok", "broker": "ConnectionRefusedError"}
    assert "secret" not in answer.text


async def test_a_draining_process_lives_and_is_not_ready(http: httpx.AsyncClient, health: Health) -> None:
    health.add("postgres", fine)
    health.draining = True
    assert (await http.get("/health/ready")).status_code == 503
    assert (await http.get("/health/live")).status_code == 200


async def test_metrics_are_in_prometheus_text_format(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE http_server_request_duration_seconds histogram" in answer.text
