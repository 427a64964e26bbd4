"""Notifications and preferences over HTTP."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from common.db.database import new_id
from common.testing.plugin import eventually
from common.testing.token_issuer import TokenIssuer
from notifier.settings import Settings

from .delivering import delivering
from .mailbox import Mailbox
from .world import World, holds


@pytest.fixture
def me() -> UUID:
    return new_id()


@pytest.fixture
def headers(issuer: TokenIssuer, me: UUID) -> dict[str, str]:
    return issuer.bearer(me)


async def listed(api: httpx.AsyncClient, headers: dict[str, str], query: str = "") -> list[dict[str, Any]]:
    answer = await api.get(f"/notifications{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_a_notification_is_listed_with_the_fields_of_the_contract(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str]
) -> None:
    order_id = await world.order("placed", me)
    [item] = await listed(api, headers)
    assert set(item) == {"id", "kind", "title", "order_id", "read_at", "created_at"}
    assert (item["kind"], item["title"], item["order_id"]) == ("order_placed", "We have your order", str(order_id))
    assert item["read_at"] is None
    assert item["created_at"].endswith("Z")


async def test_a_person_sees_only_their_own_notifications(
    api: httpx.AsyncClient, world: World, headers: dict[str, str]
) -> None:
    await world.order("placed", new_id())
    assert await listed(api, headers) == []


async def test_pages_list_notifications_newest_first_and_miss_or_repeat_none(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str]
) -> None:
    orders = [await world.order("placed", me) for _ in range(7)]
    seen, cursor = [], ""
    while True:
        page = (await api.get(f"/notifications?limit=3{cursor}", headers=headers)).json()
        seen += [item["order_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
        await world.order("placed", me)
    assert seen == [str(order_id) for order_id in reversed(orders)]


async def test_a_state_that_is_processed_late_is_listed_in_order_of_time(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str]
) -> None:
    order_id = await world.order("shipped", me)
    await world.order("placed", me, order_id)
    await world.rows(
        "UPDATE notifications SET created_at = created_at - interval '1 h' WHERE kind = 'order_placed' RETURNING id"
    )
    assert [item["kind"] for item in await listed(api, headers)] == ["order_shipped", "order_placed"]


async def test_reading_is_recorded_the_first_time_and_may_be_repeated(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str]
) -> None:
    await world.order("placed", me)
    await world.order("placed", me)
    [_, older] = await listed(api, headers)
    answers = [await api.post(f"/notifications/{older['id']}/read", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["read_at"] is not None
    assert answers[0].json() == answers[1].json()
    assert [item["id"] for item in await listed(api, headers, "?unread=false")] == [older["id"]]
    assert older["id"] not in [item["id"] for item in await listed(api, headers, "?unread=true")]
    assert len(await listed(api, headers)) == 2


async def test_concurrent_reads_have_the_same_response(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str]
) -> None:
    await world.order("placed", me)
    [item] = await listed(api, headers)
    requests = [api.post(f"/notifications/{item['id']}/read", headers=headers) for _ in range(10)]
    answers = await asyncio.gather(*requests)
    assert len({answer.json()["read_at"] for answer in answers}) == 1


async def test_another_persons_notification_is_not_found(
    api: httpx.AsyncClient, world: World, headers: dict[str, str], issuer: TokenIssuer
) -> None:
    stranger = new_id()
    await world.order("placed", stranger)
    [theirs] = await listed(api, issuer.bearer(stranger))
    for notification_id in (theirs["id"], str(new_id())):
        answer = await api.post(f"/notifications/{notification_id}/read", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert [item["read_at"] for item in await listed(api, issuer.bearer(stranger))] == [None]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?limit=0", 422, "validation_error"),
        ("?limit=101", 422, "validation_error"),
        ("?unread=perhaps", 422, "validation_error"),
        ("?cursor=garbage", 400, "invalid_cursor"),
    ],
)
async def test_a_bad_query_is_refused(
    api: httpx.AsyncClient, headers: dict[str, str], query: str, status: int, code: str
) -> None:
    answer = await api.get(f"/notifications{query}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_all_mails_are_on_by_default(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await api.get("/notification-preferences", headers=headers)
    assert answer.json() == {"order_updates": True, "welcome": True}


async def test_a_person_without_order_mails_still_has_order_notifications(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str], settings: Settings, mailbox: Mailbox
) -> None:
    """Set before the first event about the person, which must not undo it."""
    wanted = {"order_updates": False, "welcome": True}
    answer = await api.put("/notification-preferences", json=wanted, headers=headers)
    assert (answer.status_code, answer.json()) == (200, wanted)
    await world.registered(me, send_welcome=True)
    await world.order("placed", me)
    assert (await api.get("/notification-preferences", headers=headers)).json() == wanted
    assert {item["kind"] for item in await listed(api, headers)} == {"order_placed", "welcome"}
    async with delivering(settings):
        await eventually(lambda: holds(len(mailbox.mails) == 1))
    assert mailbox.mails[0]["Subject"] == "Welcome to Waybill"
    assert sorted(await world.states()) == ["cancelled", "sent"]


@pytest.mark.parametrize(
    "body",
    [
        {"order_updates": False},
        {"order_updates": False, "welcome": "yes"},
        {"order_updates": 1, "welcome": 0},
        {"order_updates": False, "welcome": None},
        {"order_updates": False, "welcome": False, "security": False},
        [],
    ],
)
async def test_preferences_must_be_complete_and_boolean(
    api: httpx.AsyncClient, headers: dict[str, str], body: Any
) -> None:
    answer = await api.put("/notification-preferences", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/notifications"),
        ("POST", "/notifications/00000000-0000-0000-0000-000000000000/read"),
        ("GET", "/notification-preferences"),
        ("PUT", "/notification-preferences"),
    ],
)
async def test_every_operation_needs_a_persons_token_with_the_scope(
    api: httpx.AsyncClient, issuer: TokenIssuer, method: str, path: str
) -> None:
    body = {"order_updates": True, "welcome": True} if method == "PUT" else None
    anonymous = await api.request(method, path, json=body)
    assert anonymous.status_code == 401
    assert anonymous.headers["WWW-Authenticate"] == "Bearer"
    narrow = await api.request(method, path, json=body, headers=issuer.bearer(scope="orders:read"))
    assert (narrow.status_code, narrow.json()["code"]) == (403, "insufficient_scope")
    scope = "notifications:read notifications:write"
    service = {"Authorization": f"Bearer {issuer.mint_service('orders', scope=scope)}"}
    client = await api.request(method, path, json=body, headers=service)
    assert (client.status_code, client.json()["code"]) == (403, "forbidden")


async def test_the_openapi_document_lists_the_responses_of_every_operation(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"]
    found = {
        (method, path): set(operations[method]["responses"])
        for path, operations in paths.items()
        for method in operations
    }
    expected = {
        ("get", "/notifications"): {"200", "400", "401", "403", "422", "500", "503"},
        ("get", "/notifications/unread-count"): {"200", "401", "403", "500", "503"},
        ("post", "/notifications/read"): {"204", "401", "403", "500", "503"},
        ("post", "/notifications/{notification_id}/read"): {"200", "401", "403", "404", "422", "500", "503"},
        ("get", "/notification-preferences"): {"200", "401", "403", "500", "503"},
        ("put", "/notification-preferences"): {"200", "400", "401", "403", "413", "415", "422", "500", "503"},
        ("post", "/webhooks"): {"201", "400", "401", "403", "409", "413", "415", "422", "500", "503"},
        ("get", "/webhooks"): {"200", "400", "401", "403", "422", "500", "503"},
        ("delete", "/webhooks/{webhook_id}"): {"204", "401", "403", "404", "422", "500", "503"},
        ("post", "/webhooks/{webhook_id}/secret"): {"201", "401", "403", "404", "422", "500", "503"},
        ("post", "/webhooks/{webhook_id}/test"): {"202", "401", "403", "404", "422", "429", "500", "503"},
        ("get", "/webhooks/{webhook_id}/deliveries"): {"200", "400", "401", "403", "404", "422", "500", "503"},
        ("get", "/webhooks/{webhook_id}/deliveries/{event_id}"): {"200", "401", "403", "404", "422", "500", "503"},
        ("patch", "/webhooks/{webhook_id}"): {"200", "400", "401", "403", "404", "413", "415", "422", "500", "503"},
        ("post", "/webhooks/{webhook_id}/deliveries/{event_id}/resend"): {"202", "401", "403", "404", "409", "422"},
        ("post", "/webhooks/{webhook_id}/recover"): {"202", "400", "401", "403", "404", "409", "413", "415", "422"},
    }
    assert set(found) == set(expected)
    for operation, statuses in expected.items():
        assert statuses <= found[operation], operation


async def test_unread_notifications_are_counted_and_read_all_at_once(
    api: httpx.AsyncClient, world: World, me: UUID, headers: dict[str, str]
) -> None:
    stranger = new_id()
    for user_id in (me, me, me, stranger):
        await world.order("placed", user_id)
    [first, *_] = await listed(api, headers)
    await api.post(f"/notifications/{first['id']}/read", headers=headers)

    async def unread() -> int:
        answer = await api.get("/notifications/unread-count", headers=headers)
        count: int = answer.json()["count"]
        return count

    assert await unread() == 2
    before = [item["read_at"] for item in await listed(api, headers, "?unread=false")]
    assert (await api.post("/notifications/read", headers=headers)).status_code == 204
    assert (await api.post("/notifications/read", headers=headers)).status_code == 204
    assert await unread() == 0
    assert before[0] in [item["read_at"] for item in await listed(api, headers)]
    assert await world.rows("SELECT 1 FROM notifications WHERE read_at IS NULL AND user_id = :id", id=stranger)


async def test_counting_and_reading_all_need_a_token_with_their_scopes(
    api: httpx.AsyncClient, issuer: TokenIssuer, me: UUID
) -> None:
    assert (await api.get("/notifications/unread-count")).status_code == 401
    assert (await api.post("/notifications/read")).status_code == 401
    reading = issuer.bearer(me, scope="notifications:read")
    assert (await api.post("/notifications/read", headers=reading)).status_code == 403
