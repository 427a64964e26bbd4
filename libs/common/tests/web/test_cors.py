from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from common.web import ApiRouter

ORIGIN = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}

router = ApiRouter()


@router.post("/orders")
async def place_order() -> None: ...


@router.post("/fail")
async def fail() -> None:
    raise ZeroDivisionError


@pytest.fixture
async def http(serve: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve(router, cors_origins=(ORIGIN,)) as client:
        yield client


async def test_a_preflight_of_an_allowed_origin_is_answered(http: httpx.AsyncClient) -> None:
    answer = await http.options("/orders", headers={"Origin": ORIGIN, **PREFLIGHT})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-request-id" in answer.headers


async def test_a_preflight_of_another_origin_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.options("/orders", headers={"Origin": "https://other.example", **PREFLIGHT})
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (400, "cors_refused")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/orders", b"", 200), ("/nowhere", b"", 404), ("/orders", b"x" * (2 << 20), 413), ("/fail", b"", 500)],
)
async def test_answers_and_errors_alike_may_be_read_by_an_allowed_origin(
    http: httpx.AsyncClient, path: str, body: bytes, status: int
) -> None:
    answer = await http.post(path, content=body, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in answer.headers["vary"]
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {"x-request-id", "etag", "location", "retry-after", "x-process-time"} <= set(exposed)


async def test_an_answer_to_another_origin_carries_no_permission(http: httpx.AsyncClient) -> None:
    answer = await http.post("/orders", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert "Origin" in answer.headers["vary"]


async def test_cors_is_off_unless_configured(serve: Any) -> None:
    async with serve(router) as http:
        answer = await http.post("/orders", headers={"Origin": ORIGIN})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await http.options("/orders", headers={"Origin": ORIGIN, **PREFLIGHT})).status_code == 405
