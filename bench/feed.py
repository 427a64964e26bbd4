"""From an order's commit to its event's receipt over HTTP, through the gateway; and the memory of an idle stream."""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import httpx
import psutil

from bench.identity import FORM, Connection
from bench.latency import JSON, LIMIT, RATES, commits, open_shop, percentiles, place, with_commit_times
from bench.scale import SMOKE, Scale
from bench.shop import ISSUER, serving
from bench.shop import open_shop as open_database
from bench.table import Goal, Rounds, Table
from common.db.database import new_id
from common.feed.slots import MOST
from common.testing.plugin import eventually
from common.testing.served import event_source

MEMORY = 250.0
"""MB of one API process, in which idle streams are counted."""
STREAMS = 2000


async def run(scale: Scale, table: Table) -> None:
    await _idle_streams(table, 50 if scale is SMOKE else STREAMS)
    rounds, status = Rounds(), await with_commit_times()
    tokens = await open_shop(status), await _reader(status)
    for rate in RATES:
        count = int(rate * scale.seconds) + 1
        for kind, follow in (("stream", _stream), ("pages", _pages)):
            name = f"{kind} {rate}"
            for _ in range(min(scale.rounds, 3)):
                measured = (_order_and_receive, status, tokens, follow, rate, count)
                await rounds.measure(name, *measured, within=LIMIT)
            for part in ("p50", "p99"):
                goal = Goal(1000, 100, at_most=True) if part == "p99" else None
                what = f"order → event, {kind}, at {rate}/s, {part}"
                table.add(what, rounds.median(name, part), "ms", goal=goal, key=f"feed {name} {part}")


async def _reader(status: dict[str, Any]) -> str:
    """The token of a client that may read events."""
    connection = Connection(status["gateway"])
    _, admin = await connection.sign_in(status["admin"]["email"], status["admin"]["password"])
    wanted = {"name": "bench", "grant_types": ["client_credentials"], "scopes": ["events:read"]}
    created, client = await connection.call("POST", "/clients", json.dumps(wanted), JSON, admin)
    assert created == 201, client
    form = {"grant_type": "client_credentials", **{name: client[name] for name in ("client_id", "client_secret")}}
    granted, answer = await connection.call("POST", "/token", urlencode(form), FORM)
    assert granted == 200, answer
    token: str = answer["access_token"]
    return token


async def _order_and_receive(
    status: dict[str, Any], tokens: tuple[str, str], follow: Any, rate: int, count: int
) -> dict[str, float]:
    """The milliseconds from the commit, by PostgreSQL's clock, to the receipt, by that of the same machine."""
    shopper, reader = tokens
    received: dict[UUID, float] = {}
    begun = asyncio.Event()
    following = asyncio.ensure_future(follow(status["gateway"], reader, received, begun))
    try:
        await begun.wait()
        ids = await place(status, shopper, rate, count)

        async def has_all() -> bool:
            return received.keys() >= set(ids)

        await eventually(has_all, within=LIMIT)
    finally:
        following.cancel()
    committed = await commits(status, "orders", "SELECT id, xmin FROM orders", "id", ids)
    return percentiles([(received[order_id] - committed[order_id]) * 1000 for order_id in ids])


async def _stream(gateway: str, token: str, received: dict[UUID, float], begun: asyncio.Event) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=gateway) as client,
        event_source(client, "/events/stream", headers) as events,
    ):
        async for event in events:
            begun.set()  # by the first comment
            if "data" in event:
                received[UUID(json.loads(event["data"])["subject"])] = time.time()


async def _pages(gateway: str, token: str, received: dict[UUID, float], begun: asyncio.Event) -> None:
    connection, query = Connection(gateway), "from=latest"
    while True:
        _, events = await connection.call("GET", f"/events?limit=1000&{query}", bearer=token)
        now = time.time()
        received |= {UUID(event["subject"]): now for event in events}
        if events:
            query = f"wait=30&after={events[-1]['id']}"
        elif not begun.is_set():
            query = "wait=30&from=latest"
            asyncio.get_running_loop().call_later(0.5, begun.set)


@asynccontextmanager
async def _opened(url: str, token: str) -> AsyncIterator[asyncio.StreamReader]:
    server = urlsplit(url)
    reader, writer = await asyncio.open_connection(server.hostname, server.port)
    try:
        head = f"GET /events/stream HTTP/1.1\r\nHost: {server.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        yield reader
    finally:
        writer.close()


async def _idle_streams(table: Table, count: int) -> None:
    """Opens streams of many people at one API process, and compares its memory before and after."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # inherited by the server
    async with open_database(connections=1) as shop, serving("orders", shop.database_url) as (url, pid):
        process = psutil.Process(pid)
        before = process.memory_info().rss / 1e6
        tokens = [ISSUER.mint(new_id()) for _ in range(count // MOST)]
        opened = [_opened(url, token) for token in tokens for _ in range(MOST)]
        try:
            for first in range(0, len(opened), 50):
                await asyncio.gather(*(stream.__aenter__() for stream in opened[first : first + 50]))
            each = (process.memory_info().rss / 1e6 - before) / len(opened)
        finally:
            for stream in opened:
                await stream.__aexit__(None, None, None)
    table.add("an idle stream: memory", each * 1000, "KB", key="idle stream")
    table.add(f"idle streams in {MEMORY:.0f} MB", (MEMORY - before) / each, "", key="idle streams")
