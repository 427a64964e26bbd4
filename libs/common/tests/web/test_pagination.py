import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from common.runtime.health import Health
from common.settings import ServiceSettings
from common.testing.api_client import api_client
from common.web import ApiRouter, create_api
from common.web.pagination import InvalidCursor, Page, PageDep, decode_cursor, encode_cursor, instant

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ID = UUID("0197a6c5-7c1e-7d0a-9f3b-2f1f6a1b2c3d")


@dataclass(frozen=True)
class Number:
    value: int


ROWS = [Number(value) for value in range(1, 46)]

router = ApiRouter()


@router.get("/numbers")
async def list_numbers(page: PageDep) -> Page[int]:
    async def fetch(*, after: int | None, limit: int) -> Sequence[Number]:
        return [row for row in ROWS if after is None or row.value > after][:limit]

    return await page.load(fetch, by={"value": int}, item=lambda row: row.value)


class ShopSettings(ServiceSettings):
    service: ClassVar[str] = "shop"


@pytest.fixture
def app() -> FastAPI:
    settings = ShopSettings(
        database_url=SecretStr("postgresql://nowhere.invalid/shop"),
        amqp_url=SecretStr("amqp://nowhere.invalid"),
        public_url="http://gateway.invalid",
        auth_url="http://auth.invalid",
    )
    return create_api(settings, title="Shop", routers=[router], health=Health())


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(app) as client:
        yield client


@pytest.mark.parametrize(("query", "pages"), [("", [20, 20, 5]), ("limit=45", [45]), ("limit=44", [44, 1])])
async def test_the_pages_together_are_the_whole_list_once(
    http: httpx.AsyncClient, query: str, pages: list[int]
) -> None:
    seen: list[list[int]] = []
    cursor = ""
    while True:
        answer = (await http.get(f"/numbers?{query}{cursor}")).json()
        assert set(answer) == {"items", "next_cursor"}
        seen.append(answer["items"])
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert [len(page) for page in seen] == pages
    assert [row for page in seen for row in page] == [row.value for row in ROWS]


@pytest.mark.parametrize("limit", ["0", "-1", "101", "x", "1.5", "", "99999999999999999999"])
async def test_a_limit_outside_of_1_to_100_is_422(http: httpx.AsyncClient, limit: str) -> None:
    answer = await http.get("/numbers", params={"limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


def raw(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def ours(*values: object) -> str:
    return encode_cursor("/numbers", values)


BAD = [
    "",
    "x",
    "!!!!",
    "é",
    "a" * 600,
    raw(b"not json"),
    raw(b"{}"),
    raw(b"[1]"),
    raw(b'["x"]'),
    raw(b'["1","2"]'),
    raw(b"[]"),
    raw(b'["' + b"9" * 5000 + b'"]'),
    raw(b"[" * 200),
    raw(b'[ "1"]'),
    raw(b'["01"]'),
    raw(b'["1"]') + "=",
    ours("x"),
    ours("1", "2"),
    ours(),
    ours("01"),
    ours("9" * 300),
    ours(1) + "=",
    ours(1) + "A",
    " " + ours(1),
    ours(2**63),
    encode_cursor("/letters", (1,)),
]


@pytest.mark.parametrize("cursor", BAD)
async def test_a_cursor_that_is_not_ours_is_400(http: httpx.AsyncClient, cursor: str) -> None:
    answer = await http.get("/numbers", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


async def test_a_cursor_with_nul_is_invalid_like_any_other(http: httpx.AsyncClient) -> None:
    answer = await http.get("/numbers?cursor=%00")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_a_cursor_carries_times_and_ids_exactly_and_safely_in_an_address() -> None:
    cursor = ours(AT, ID)
    assert decode_cursor("/numbers", cursor, instant, UUID) == (AT, ID)
    assert set(cursor) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05", "0001-01-01T00:00:00+23:59", "2026-01-02", "now"])
def test_a_time_of_another_form_is_no_cursor_of_ours(time: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor("/numbers", ours(time), instant)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_the_database_cannot_store_is_no_cursor_of_ours(text: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor("/numbers", ours(text), str)


def test_the_document_bounds_the_parameters_and_names_the_400(app: FastAPI) -> None:
    operation = app.openapi()["paths"]["/numbers"]["get"]
    limit: dict[str, Any] = next(item["schema"] for item in operation["parameters"] if item["name"] == "limit")
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 100, 20)
    assert "400" in operation["responses"]
