"""Webhooks over HTTP."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from common.db.database import new_id, utc_now
from common.testing.token_issuer import TokenIssuer
from notifier.webhooks.ending import end_webhooks
from notifier.webhooks.handlers import MAX_WEBHOOKS

from .world import World

NEW: dict[str, Any] = {"url": "https://hooks.invalid/x", "event_types": ["orders.order.placed.v1"]}


@pytest.fixture
def headers(issuer: TokenIssuer, me: UUID) -> dict[str, str]:
    return issuer.bearer(me)


async def created(api: httpx.AsyncClient, headers: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = await api.post("/webhooks", json=NEW | fields, headers=headers)
    assert answer.status_code == 201, answer.text
    webhook: dict[str, Any] = answer.json()
    return webhook


async def test_the_secret_of_a_new_webhook_is_shown_once(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await api.post("/webhooks", json=NEW, headers=headers)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    webhook = answer.json()
    assert webhook["secret"].startswith("whsec_")
    listed = (await api.get("/webhooks", headers=headers)).json()
    assert listed["items"] == [{name: value for name, value in webhook.items() if name != "secret"}]
    assert listed["items"][0].keys() == {"id", "url", "event_types", "enabled", "disabled_reason", "created_at"}
    other = await created(api, headers)
    assert other["secret"] != webhook["secret"]


async def test_a_repeated_event_type_counts_once(api: httpx.AsyncClient, headers: dict[str, str], world: World) -> None:
    types = ["orders.order.shipped.v1", "orders.order.placed.v1", "orders.order.shipped.v1"]
    webhook = await created(api, headers, event_types=types)
    assert webhook["event_types"] == types[:2]


@pytest.mark.parametrize(
    "fields",
    [
        {"event_types": []},
        {"event_types": ["orders.order.eaten.v1"]},
        {"event_types": ["users.user.registered.v1"]},
        {"event_types": ["*"]},
        {"event_types": None},
        {"event_types": "orders.order.placed.v1"},
        {"event_types": ["orders.order.placed.v1"] * 21},
        {"url": 1},
        {"url": "https://hooks.invalid/" + "x" * 2048},
        {"url": "https://hooks.invalid/\x00"},
        {"secret": "whsec_mine"},
    ],
)
async def test_an_invalid_body_is_refused(
    api: httpx.AsyncClient, headers: dict[str, str], fields: dict[str, Any]
) -> None:
    answer = await api.post("/webhooks", json=NEW | fields, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    "url",
    [
        *("http://hooks.invalid/", "https://127.0.0.1/", "https://localhost/", "https://10.0.0.1/", "https://[::1]/"),
        *("https://xn--i-7iq.ws/", "https://xn--/", "https://[fe80::1%25eth0]/", "https://a:b@hooks.invalid/", "x"),
    ],
)
async def test_a_forbidden_url_is_refused_as_a_field_error(
    api: httpx.AsyncClient, headers: dict[str, str], url: str
) -> None:
    answer = await api.post("/webhooks", json=NEW | {"url": url}, headers=headers)
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_webhook_url")
    assert [error["loc"] for error in problem["errors"]] == [["body", "url"]]
    assert (await api.get("/webhooks", headers=headers)).json()["items"] == []


async def test_the_longest_url_may_hold_commas_alone(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    url = "https://8.8.8.8/?".ljust(2048, ",")
    assert (await api.post("/webhooks", json=NEW | {"url": url}, headers=headers)).status_code == 201


async def test_concurrent_requests_do_not_exceed_the_number_of_webhooks_per_person(
    api: httpx.AsyncClient, headers: dict[str, str], issuer: TokenIssuer
) -> None:
    requests = [api.post("/webhooks", json=NEW, headers=headers) for _ in range(MAX_WEBHOOKS + 3)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*requests))
    assert statuses == [201] * MAX_WEBHOOKS + [409] * 3
    answer = await api.post("/webhooks", json=NEW, headers=headers)
    assert answer.json()["code"] == "too_many_webhooks"
    await created(api, issuer.bearer(new_id()))


async def test_webhooks_are_listed_newest_first_in_pages(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    ids = [(await created(api, headers))["id"] for _ in range(5)]
    seen, cursor = [], ""
    while True:
        page = (await api.get(f"/webhooks?limit=2{cursor}", headers=headers)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


async def test_deliveries_are_listed_newest_first_in_pages(
    api: httpx.AsyncClient, headers: dict[str, str], me: UUID, world: World
) -> None:
    webhook = await created(api, headers)
    for _ in range(3):
        await world.order("placed", me)
    test = await api.post(f"/webhooks/{webhook['id']}/test", headers=headers)
    assert test.status_code == 202
    path = f"/webhooks/{webhook['id']}/deliveries"
    first = (await api.get(f"{path}?limit=2", headers=headers)).json()
    second = (await api.get(f"{path}?limit=2&cursor={first['next_cursor']}", headers=headers)).json()
    items = first["items"] + second["items"]
    assert [item["type"] for item in items] == ["notifier.webhook.test.v1"] + ["orders.order.placed.v1"] * 3
    assert items[0] == test.json()
    assert items == sorted(items, key=lambda item: str(item["event_id"]), reverse=True)
    assert {(item["state"], item["attempts"], item["cause"], item["settled_at"]) for item in items} == {
        ("pending", 0, None, None)
    }
    assert second["next_cursor"] is None


async def test_the_tests_of_a_webhook_are_limited(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    path = f"/webhooks/{(await created(api, headers))['id']}/test"
    answers = await asyncio.gather(*(api.post(path, headers=headers) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [202] * 10 + [429] * 2
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "60"


async def test_a_replacement_secret_is_shown_once(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    webhook = await created(api, headers)
    answer = await api.post(f"/webhooks/{webhook['id']}/secret", headers=headers)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json().keys() == webhook.keys()
    assert answer.json()["secret"] not in {webhook["secret"], None}


async def test_a_webhook_is_deleted_with_its_deliveries(
    api: httpx.AsyncClient, headers: dict[str, str], me: UUID, world: World
) -> None:
    webhook = await created(api, headers)
    await world.order("placed", me)
    assert (await api.delete(f"/webhooks/{webhook['id']}", headers=headers)).status_code == 204
    assert (await api.get("/webhooks", headers=headers)).json()["items"] == []
    await end_webhooks(world.database)
    assert await world.posts() == []
    assert (await api.delete(f"/webhooks/{webhook['id']}", headers=headers)).status_code == 404


OF_ONE: list[tuple[str, str]] = [
    *(("DELETE", ""), ("PATCH", ""), ("POST", "/test"), ("POST", "/secret"), ("POST", "/recover")),
    *(("GET", "/deliveries"), ("GET", f"/deliveries/{UUID(int=0)}"), ("POST", f"/deliveries/{UUID(int=0)}/resend")),
]
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", ""): {"enabled": False},
    ("POST", "/recover"): {"since": utc_now().isoformat()},
}


@pytest.mark.parametrize(("method", "path"), OF_ONE)
async def test_another_persons_webhook_is_not_found(
    api: httpx.AsyncClient, headers: dict[str, str], issuer: TokenIssuer, world: World, method: str, path: str
) -> None:
    theirs = await created(api, issuer.bearer(new_id()))
    for webhook_id in (theirs["id"], str(new_id())):
        body = BODIES.get((method, path))
        answer = await api.request(method, f"/webhooks/{webhook_id}{path}", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert len(await world.rows("SELECT 1 FROM webhooks")) == 1
    assert (await api.get("/webhooks", headers=headers)).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", ""), *((method, f"/{UUID(int=0)}{path}") for method, path in OF_ONE)],
)
async def test_every_operation_needs_a_persons_token_with_the_scope(
    api: httpx.AsyncClient, issuer: TokenIssuer, method: str, path: str
) -> None:
    assert (await api.request(method, f"/webhooks{path}")).status_code == 401
    narrow = issuer.bearer(scope="orders:read" if method == "GET" else "notifications:read")
    answer = await api.request(method, f"/webhooks{path}", headers=narrow)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    scope = "notifications:read notifications:write"
    service = {"Authorization": f"Bearer {issuer.mint_service('orders', scope=scope)}"}
    answer = await api.request(method, f"/webhooks{path}", headers=service)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("path", ["/webhooks", f"/webhooks/{UUID(int=0)}/deliveries"])
async def test_a_bad_page_is_refused(api: httpx.AsyncClient, headers: dict[str, str], path: str) -> None:
    for query, status, code in (("limit=0", 422, "validation_error"), ("cursor=x", 400, "invalid_cursor")):
        answer = await api.get(f"{path}?{query}", headers=headers)
        if path == "/webhooks" or status == 422:
            assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_erased_person_cannot_create_a_webhook(
    api: httpx.AsyncClient, headers: dict[str, str], me: UUID, world: World
) -> None:
    """With a token that is valid for a moment longer than the account."""
    await world.event("users.user.erased.v1", version=2, user_id=str(me))
    answer = await api.post("/webhooks", json=NEW, headers=headers)
    assert answer.status_code == 403
    assert await world.rows("SELECT 1 FROM webhooks") == []
