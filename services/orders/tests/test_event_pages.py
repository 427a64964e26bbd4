"""`GET /events`: what a page has, who sees what, and what cannot be continued."""

import asyncio
import json
import time
from typing import Any

import jsonschema
import pytest

from common.db.database import new_id
from common.testing.plugin import eventually
from orders.settings import Settings

from .feed_world import FeedShop
from .test_consumers import erase
from .test_contracts import EVENTS

PLACED, CONFIRMED = "orders.order.placed.v1", "orders.order.confirmed.v1"


@pytest.fixture
async def feed(shop: Any, settings: Settings) -> FeedShop:
    return FeedShop(shop.client, settings.database_url.get_secret_value())


async def test_pages_have_all_events_in_the_order_of_publishing_as_structured_cloudevents(feed: FeedShop) -> None:
    orders = [await feed.order() for _ in range(3)]
    await feed.act(orders[1]["id"], "confirm")
    assert await feed.read() == []  # recorded, but not published
    await feed.publish()
    events = await eventually(feed.read)
    assert [(event["subject"], event["type"], event["aggregateversion"]) for event in events] == [
        *((order["id"], PLACED, 1) for order in orders),
        (orders[1]["id"], CONFIRMED, 2),
    ]
    for event in events:
        assert event["source"] == "/orders"
        assert event["specversion"] == "1.0"
        assert event["partitionkey"] == event["subject"] == event["data"]["order_id"]
        schema = event["dataschema"].rpartition("/")[2]
        jsonschema.validate(event["data"], json.loads((EVENTS / schema).read_text()))
    assert await feed.read(f"?after={events[1]['id']}") == events[2:]
    assert await feed.read(f"?after={events[-1]['id']}") == []
    assert await feed.read(f"?type={CONFIRMED}") == events[3:]
    assert await feed.read(f"?type={CONFIRMED}&type={PLACED}&limit=2") == events[:2]


async def test_following_the_links_reads_everything_once(feed: FeedShop) -> None:
    placed = [(await feed.order())["id"] for _ in range(5)]
    await feed.publish()
    await eventually(feed.read)
    seen, path = [], f"/events?limit=2&type={PLACED}"
    while path:
        answer = await feed.client.get(path, headers=feed.events_client)
        seen += [event["subject"] for event in answer.json()]
        path = answer.links["next"]["url"] if answer.links else ""
        assert not path or (f"type={PLACED}" in path and "limit=2" in path)
    assert seen == placed


async def test_reading_can_begin_now(feed: FeedShop) -> None:
    begun = await feed.client.get("/events?from=latest", headers=feed.events_client)
    assert (begun.json(), begun.links["next"]["url"]) == ([], "/events?limit=100")
    await feed.order()
    await feed.publish()
    [old] = await eventually(feed.read)
    mine = feed.bearer()
    for headers in (feed.events_client, mine):
        begun = await feed.client.get(f"/events?from=latest&limit=7&type={CONFIRMED}", headers=headers)
        assert (begun.json(), begun.links["next"]["url"]) == ([], f"/events?after={old['id']}&type={CONFIRMED}&limit=7")
    await feed.order(customer=new_id())
    new = await feed.order()
    await feed.publish()
    continued = f"/events?after={old['id']}"

    async def arrived() -> bool:
        return len((await feed.client.get(continued, headers=feed.events_client)).json()) == 2

    await eventually(arrived)
    assert [event["subject"] for event in (await feed.client.get(continued, headers=mine)).json()] == [new["id"]]


async def test_a_person_sees_the_events_of_their_own_orders_and_a_client_all(feed: FeedShop) -> None:
    other = new_id()
    mine, theirs = await feed.order(), await feed.order(customer=other)
    await feed.publish()
    both = await eventually(lambda: feed.read(**feed.events_client))
    assert [event["subject"] for event in both] == [mine["id"], theirs["id"]]
    assert await feed.read(**feed.bearer()) == both[:1]
    assert await feed.read(**feed.bearer(roles=("staff",), scope="events:read")) == both[:1]
    assert await feed.read(**feed.bearer(new_id(), roles=("admin",))) == []
    hidden = await feed.client.get(f"/events?after={both[1]['id']}", headers=feed.bearer())
    assert feed.is_problem(hidden, 410, "history_gone")
    for headers in (feed.client_bearer("orders:read"), feed.bearer(scope="account")):
        refused = await feed.client.get("/events", headers=headers)
        assert feed.is_problem(refused, 403, "insufficient_scope")
        assert 'scope="events:read"' in refused.headers["WWW-Authenticate"]
    assert feed.is_problem(await feed.client.get("/events"), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/events", "/events/stream", "/orders/{order}/stream"])
async def test_what_cannot_be_read_is_refused(feed: FeedShop, path: str) -> None:
    order = await feed.order()
    path, headers = path.format(order=order["id"]), {**feed.client_bearer("events:read orders:read")}
    for query, status, code in (
        (f"after={new_id()}", 410, "history_gone"),
        ("after=no-id", 422, "validation_error"),
        ("type=orders.order.lost.v1", 422, "validation_error"),
        ("type=%00", 422, "validation_error"),
    ):
        refused = await feed.client.get(f"{path}?{query}", headers=headers)
        assert feed.is_problem(refused, status, code), query
    if path == "/events":
        for query in ("limit=0", "limit=1001", "wait=31", "wait=-1", "from=first", f"from=latest&after={new_id()}"):
            assert (await feed.client.get(f"{path}?{query}", headers=headers)).status_code == 422, query
        return
    for last, status in ((str(new_id()), 410), ("no-id", 422)):
        refused = await feed.client.get(path, headers={**headers, "Last-Event-ID": last})
        assert refused.status_code == status
    unknown = await feed.client.get(f"/orders/{new_id()}/stream", headers=headers)
    assert feed.is_problem(unknown, 404, "not_found")
    others = await feed.client.get(f"/orders/{order['id']}/stream", headers=feed.bearer(new_id()))
    assert feed.is_problem(others, 404, "not_found")
    head = await feed.client.head(path, headers=headers)
    assert (head.status_code, head.content) == (200, b"")


async def test_an_event_that_is_not_kept_any_more_is_gone(feed: FeedShop, desk: Any) -> None:
    await feed.order()
    await feed.publish()
    [old] = await eventually(feed.read)
    await desk.rows("DELETE FROM event_log RETURNING 1")

    async def gone() -> bool:
        answer = await feed.client.get(f"/events?after={old['id']}", headers=feed.events_client)
        return answer.status_code == 410

    await eventually(gone)


async def test_a_page_waits_for_an_event_or_until_the_time_is_over(feed: FeedShop) -> None:
    await feed.order()
    await feed.publish()
    [first] = await eventually(feed.read)
    mine = feed.bearer()
    began = time.monotonic()
    assert await feed.read(f"?after={first['id']}&wait=1", **mine) == []
    assert 0.9 < time.monotonic() - began < 3
    waiting = [asyncio.ensure_future(feed.read(f"?after={first['id']}&wait=20", **mine)) for _ in range(5)]
    waiting.append(asyncio.ensure_future(feed.read("?from=latest&wait=20")))
    other = asyncio.ensure_future(feed.read(f"?wait=20&type={CONFIRMED}"))
    await asyncio.wait([*waiting, other], timeout=0.5)
    assert not any(task.done() for task in [*waiting, other])
    second = await feed.order()
    await feed.publish()
    for found in await asyncio.wait_for(asyncio.gather(*waiting), 5):
        assert [event["subject"] for event in found] == [second["id"]]
    assert not other.done()
    await feed.act(second["id"], "confirm")
    await feed.publish()
    assert [event["type"] for event in await asyncio.wait_for(other, 5)] == [CONFIRMED]


async def test_events_arrive_without_a_notification_too(feed: FeedShop) -> None:
    waiting = asyncio.ensure_future(feed.read("?wait=20"))
    order = await feed.order()
    await feed.publish(notify=False)
    assert [event["subject"] for event in await asyncio.wait_for(waiting, 5)] == [order["id"]]


async def test_what_was_erased_is_gone_from_the_feed(feed: FeedShop, desk: Any) -> None:
    order = await feed.order()
    await feed.act(order["id"], "cancel", {"reason": "Ada moved"})
    await feed.publish()
    events = await eventually(feed.read)
    assert events[1]["data"]["reason"] == "Ada moved"
    await erase(desk.database, {"user_id": str(feed.customer)})

    async def erased() -> bool:
        [event] = await feed.read(f"?after={events[0]['id']}")
        return event["data"]["reason"] is None

    await eventually(erased, within=1)


async def test_orders_are_listed_by_their_last_change(feed: FeedShop) -> None:
    first, second = await feed.order(), await feed.order()
    changed = (await feed.act(first["id"], "confirm")).json()
    for since, expected in (
        (first["updated_at"], [second["id"], first["id"]]),
        (changed["updated_at"], [first["id"]]),
        ("2099-01-01T00:00:00Z", []),
    ):
        listed = (await feed.get(f"/orders?updated_since={since}")).json()["items"]
        assert [order["id"] for order in listed] == expected
    for wrong in ("yesterday", "2026-01-01T00:00:00"):
        assert feed.is_problem(await feed.get(f"/orders?updated_since={wrong}"), 422, "validation_error")
