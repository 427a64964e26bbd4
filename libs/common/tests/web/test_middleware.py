import re
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Request

from common.observability.trace import current_traceparent
from common.runtime.health import Health
from common.web import ApiRouter
from common.web.middleware import RequestMiddleware

LogLines = Callable[[], list[dict[str, Any]]]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

router = ApiRouter()


@router.get("/orders/{order_id}")
async def get_order(order_id: int, request: Request) -> dict[str, str | None]:
    request.state.principal = SimpleNamespace(subject="ada", client_id="web")
    return {"traceparent": current_traceparent()}


@router.post("/fail")
async def fail() -> None:
    raise ZeroDivisionError


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router) as client:
        yield client


ANY_ANSWER = [
    ("GET", "/orders/1", 200),
    ("GET", "/orders/x", 422),
    ("GET", "/nowhere", 404),
    ("DELETE", "/orders/1", 405),
    ("POST", "/fail", 500),
    ("GET", "/health", 200),
    ("GET", "/docs", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ANY_ANSWER)
async def test_every_answer_has_its_request_id_and_its_time(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
    assert re.fullmatch(r"\d+\.\d{3}s", answer.headers["x-process-time"])
    assert re.fullmatch(r"app;dur=\d+\.\d", answer.headers["server-timing"])
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("method", "path", "status"), ANY_ANSWER)
async def test_no_answer_is_kept_by_a_cache_unless_it_says_so(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
    assert (await http.get("/docs/assets/favicon.png")).headers.get_list("cache-control") == ["public, max-age=86400"]


async def test_a_request_id_of_the_client_is_kept(http: httpx.AsyncClient) -> None:
    answer = await http.get("/orders/1", headers={"X-Request-ID": "shop.7-A_z"})
    assert answer.headers["x-request-id"] == "shop.7-A_z"


@pytest.mark.parametrize("bad", ["", "a b", "a\tb", 'a"b', "<script>", "é", "a" * 129, "{x}"])
async def test_a_request_id_of_another_form_is_replaced(http: httpx.AsyncClient, bad: str) -> None:
    answer = await http.get("/orders/1", headers=[(b"x-request-id", bad.encode())])
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])


async def test_a_traceparent_is_passed_on(http: httpx.AsyncClient) -> None:
    answer = await http.get("/orders/1", headers={"traceparent": PARENT})
    assert answer.json() == {"traceparent": PARENT}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "garbage",
        PARENT + "-more",
        "ff" + PARENT[2:],
        PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT.upper(),
    ],
)
async def test_an_invalid_traceparent_is_replaced(http: httpx.AsyncClient, bad: str) -> None:
    made = (await http.get("/orders/1", headers={"traceparent": bad})).json()["traceparent"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", made)
    assert made[3:35] != PARENT[3:35]


async def test_a_traceparent_of_a_later_version_is_passed_on_as_version_00(http: httpx.AsyncClient) -> None:
    answer = await http.get("/orders/1", headers={"traceparent": "cc" + PARENT[2:] + "-future"})
    assert answer.json() == {"traceparent": PARENT}


async def test_no_trace_is_left_behind_after_a_request(http: httpx.AsyncClient) -> None:
    await http.get("/orders/1", headers={"traceparent": PARENT})
    assert current_traceparent() is None


async def test_a_request_is_one_log_line_with_template_person_and_ids(
    http: httpx.AsyncClient, log_lines: LogLines
) -> None:
    answer = await http.get("/orders/7?token=secret&email=a@b.example", headers={"traceparent": PARENT})
    [line] = log_lines()
    assert line.pop("ms") >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "common.request",
        "service": "shop",
        "role": "api",
        "method": "GET",
        "route": "/orders/{order_id}",
        "status": 200,
        "subject": "ada",
        "client_id": "web",
        "request_id": answer.headers["x-request-id"],
        "trace_id": PARENT[3:35],
    }


async def test_head_is_answered_as_get_is_and_logged_as_itself(http: httpx.AsyncClient, log_lines: LogLines) -> None:
    for path, status in (("/orders/7", 200), ("/orders/x", 422), ("/fail", 405), ("/docs", 200)):
        answer = await http.head(path)
        assert answer.status_code == status
    assert answer.headers["content-length"] == (await http.get("/docs")).headers["content-length"]
    lines = [(line["method"], line["route"], line["status"]) for line in log_lines()]
    assert lines[0] == ("HEAD", "/orders/{order_id}", 200)


async def test_a_path_of_no_route_is_logged_without_query_mail_or_line_break(
    http: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await http.get("/users/ada@mail.example/a%0d%0ab?token=secret")
    [line] = log_lines()
    assert (line["route"], line["path"]) == ("(no route)", "/users/[mail]/a\r\nb")


async def test_pages_are_logged_by_their_templates_too(http: httpx.AsyncClient, log_lines: LogLines) -> None:
    await http.get("/docs/assets/favicon.png")
    assert [line["route"] for line in log_lines()] == ["/docs/assets/{name}"]


async def test_a_failed_request_is_logged_as_a_warning_in_the_same_form(
    http: httpx.AsyncClient, log_lines: LogLines
) -> None:
    await http.post("/fail")
    error, line = log_lines()
    assert error["level"] == "error"
    assert (line["level"], line["event"], line["route"], line["status"]) == ("warning", "request", "/fail", 500)
    assert line["logger"] == "common.request"


async def test_probes_are_not_logged(http: httpx.AsyncClient, log_lines: LogLines) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        await http.get(path)
    assert log_lines() == []


async def test_requests_are_measured_by_template_method_and_class_of_status(http: httpx.AsyncClient) -> None:
    for number in range(3):
        await http.get(f"/orders/{number}")
    await http.get("/orders/x")
    await http.get("/some/where")
    await http.request("BREW", "/some/where")
    metrics = (await http.get("/metrics")).text
    series = [line for line in metrics.splitlines() if line.startswith("http_server_request_duration_seconds_count")]
    assert any('method="GET",route="/orders/{order_id}",status="2xx"' in line for line in series)
    assert any('method="GET",route="/orders/{order_id}",status="4xx"' in line for line in series)
    assert any('method="other",route="(no route)",status="4xx"' in line for line in series)
    assert not any("/orders/1" in line or "/some/where" in line or "BREW" in line for line in series)


async def test_while_draining_answers_close_the_connection(http: httpx.AsyncClient, health: Health) -> None:
    assert "connection" not in (await http.get("/orders/1")).headers
    health.draining = True
    for path in ("/orders/1", "/nowhere"):
        assert (await http.get(path)).headers["connection"] == "close"


async def test_an_error_while_rendering_an_error_is_a_problem_too(log_lines: LogLines) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    transport = httpx.ASGITransport(RequestMiddleware(broken, health=Health()))
    async with httpx.AsyncClient(transport=transport, base_url="http://service.invalid") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert log_lines()[0]["event"] == "unexpected error outside of a route"
