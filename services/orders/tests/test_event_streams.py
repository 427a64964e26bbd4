"""`GET /events/stream` and `GET /orders/{id}/stream`: what arrives, how a stream ends, and how many there may be."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from common.db.database import new_id
from common.feed import slots, streams
from common.runtime import http_protocol
from common.runtime.health import Health
from common.security.revocation import Denylist, SessionRevoked
from common.testing.plugin import eventually
from common.testing.served import served
from orders.app import create_app
from orders.settings import Settings

from .conftest import ISSUER
from .feed_world import FeedShop, next_of


class Server:
    """Processes of the API, each with a client, on one database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.denylist = Denylist()
        self.health: list[Health] = []

    @contextlib.asynccontextmanager
    async def process(self) -> AsyncIterator[FeedShop]:
        health = Health()
        self.health.append(health)
        verifier = ISSUER.verifier("orders", denylist=self.denylist)
        async with (
            served(create_app(self.settings, health, tokens=verifier)) as url,
            httpx.AsyncClient(base_url=url, timeout=10) as client,
        ):
            shop = FeedShop(client, self.settings.database_url.get_secret_value())
            await shop.stock()
            yield shop


@pytest.fixture
async def server(settings: Settings) -> Server:
    return Server(settings)


@pytest.fixture
async def feed(server: Server) -> AsyncIterator[FeedShop]:
    async with server.process() as shop:
        yield shop


async def ended(events: AsyncIterator[dict[str, str]], reason: str, *, within: float = 1.5) -> None:
    assert await next_of(events, within=within) == {"event": "end", "data": json.dumps({"reason": reason})}
    with pytest.raises(StopAsyncIteration):
        await next_of(events)


async def test_a_stream_begins_now_and_has_every_event_from_then_on(feed: FeedShop) -> None:
    await feed.order()
    await feed.publish()
    [old] = await eventually(feed.read)
    mine, order = feed.bearer(), await feed.order()
    async with (
        feed.stream() as all_events,
        feed.stream("/events/stream", **mine) as own,
        feed.stream(f"/orders/{order['id']}/stream", **mine) as of_order,
        feed.stream("/events/stream?type=orders.order.confirmed.v1", **mine) as confirmed,
    ):
        other = await feed.order(customer=new_id())
        await feed.act(order["id"], "confirm")
        await feed.publish()
        placed, others, changed = [await next_of(all_events) for _ in range(3)]
        assert [json.loads(one["data"])["subject"] for one in (placed, others)] == [order["id"], other["id"]]
        for event in (placed, others, changed):
            data = json.loads(event["data"])
            assert (event["id"], event["event"]) == (data["id"], data["type"])
        for events, expected in ((own, [placed, changed]), (of_order, [placed, changed]), (confirmed, [changed])):
            assert [await next_of(events) for _ in expected] == expected
    whole = await feed.read()
    assert whole == [old, *(json.loads(one["data"]) for one in (placed, others, changed))]


async def test_a_stream_resumes_after_the_last_event_that_the_reader_has(feed: FeedShop) -> None:
    for _ in range(3):
        await feed.order()
    await feed.publish()
    first, second, third = await eventually(feed.read)
    headers = {**feed.events_client, "Last-Event-ID": second["id"]}
    async with feed.stream(f"/events/stream?after={first['id']}", **headers) as events:
        assert (await next_of(events))["id"] == third["id"]
    async with feed.stream(f"/events/stream?after={first['id']}") as events:
        assert [(await next_of(events))["id"] for _ in range(2)] == [second["id"], third["id"]]


async def test_a_stream_ends_with_its_reason(server: Server, feed: FeedShop) -> None:
    session = str(new_id())
    async with feed.stream("/events/stream", **feed.bearer(sid=session)) as events:
        server.denylist.revoke_session(SessionRevoked(session_id=session))
        await ended(events, "revoked")
    now = int(time.time())
    short = ISSUER.bearer(iat=now - 60, exp=now - 8)  # within the leeway of 10 s
    async with feed.stream("/events/stream", **short) as events:
        await ended(events, "expired", within=4)
    waiting = asyncio.ensure_future(feed.read("?from=latest&wait=20"))
    async with feed.stream() as events:
        server.health[0].draining = True
        await ended(events, "shutdown")
    assert await asyncio.wait_for(waiting, 2) == []


async def test_a_comment_keeps_a_silent_stream_open(feed: FeedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_COMMENT_INTERVAL", 0.2)
    async with feed.stream() as events:
        assert [await next_of(events, within=10) for _ in range(2)] == [{"comment": ""}] * 2


async def test_a_subject_has_five_streams_over_all_processes(server: Server, feed: FeedShop) -> None:
    order = await feed.order()
    async with server.process() as other, contextlib.AsyncExitStack() as stack:

        async def open_stream(shop: FeedShop, subject: Any = None) -> contextlib.AsyncExitStack:
            opened = contextlib.AsyncExitStack()
            await opened.enter_async_context(shop.stream("/events/stream", **shop.bearer(subject or feed.customer)))
            return opened

        opened = [
            await stack.enter_async_context(one)
            for one in await asyncio.gather(*(open_stream(shop) for shop in (feed, other, feed, other, feed)))
        ]
        for shop, path in ((feed, f"/orders/{order['id']}/stream"), (other, "/events/stream")):
            refused = await shop.client.get(path, headers=shop.bearer(feed.customer))
            assert shop.is_problem(refused, 429, "too_many_streams")
            assert refused.headers["Retry-After"]
        await stack.enter_async_context(await open_stream(feed, new_id()))  # another person's
        await opened[0].aclose()
        await stack.enter_async_context(await open_stream(other))  # at once, as a client does whose stream was ended


async def test_the_streams_of_a_killed_process_are_free_again(feed: FeedShop) -> None:
    connection = await asyncpg.connect(feed.dsn)
    try:
        dead = new_id()
        await connection.execute("INSERT INTO stream_processes VALUES ($1, now())", dead)
        rows = [(str(feed.customer), slot, dead) for slot in range(1, slots.MOST + 1)]
        await connection.executemany("INSERT INTO stream_slots VALUES ($1, $2, $3, now() + interval '5 minutes')", rows)
        mine = feed.bearer()
        assert (await feed.client.get("/events/stream", headers=mine)).status_code == 429
        await connection.execute("UPDATE stream_processes SET seen_at = now() - interval '11 seconds'")
        async with feed.stream("/events/stream", **mine):
            pass
    finally:
        await connection.close()


_MANY_LARGE_EVENTS = """
    INSERT INTO event_log (event_id, type, subject, version, occurred_at, data)
    SELECT gen_random_uuid(), 'orders.order.placed.v1', gen_random_uuid()::text, 1, now(),
           jsonb_build_object('customer_id', gen_random_uuid(), 'filling', repeat('x', 50000))
    FROM generate_series(1, 300) RETURNING event_id"""


async def test_a_reader_that_takes_nothing_holds_up_nobody(
    feed: FeedShop, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "_TAKES_NOTHING", 0.5)
    order = await feed.order()
    first, *_ = await desk.rows(_MANY_LARGE_EVENTS)
    url = feed.client.base_url
    with socket.create_connection((url.host, url.port or 0)) as reader:
        token = feed.events_client["Authorization"]
        path = f"/events/stream?after={first['event_id']}"
        reader.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: {token}\r\n\r\n".encode())

        async def slots_are(count: int) -> bool:
            return len(await desk.rows("SELECT slot FROM stream_slots")) == count

        await eventually(lambda: slots_are(1))
        await others_are_served(feed, order)
        await eventually(lambda: slots_are(0))


async def others_are_served(feed: FeedShop, order: dict[str, Any]) -> None:
    async with feed.stream() as events:
        for step in ("confirm", "ship", "deliver"):
            await feed.act(order["id"], step)
        await feed.publish()
        assert [(await next_of(events))["event"].split(".")[2] for _ in range(4)] == [
            "placed",
            "confirmed",
            "shipped",
            "delivered",
        ]


async def test_readers_wait_without_a_connection_and_all_get_the_event(feed: FeedShop) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=feed.client.base_url, timeout=30, limits=limits) as client:
        path = "/events?wait=25"
        reading = [asyncio.ensure_future(client.get(path, headers=feed.events_client)) for _ in range(200)]
        await asyncio.wait(reading, timeout=2)
        connection = await asyncpg.connect(feed.dsn)
        try:
            count = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'orders-api%'"
            )
        finally:
            await connection.close()
        assert count <= 12
        order = await feed.order()
        await feed.publish()
        answers = await asyncio.wait_for(asyncio.gather(*reading), 10)
        assert {answer.json()[0]["subject"] for answer in answers} == {order["id"]}
