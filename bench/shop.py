"""A database of orders, the servers that are compared on it, and the requests to them."""

import asyncio
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from bench.ceilings import RECORDS
from bench.load import request, saturate
from bench.processors import Stopwatch, processes
from bench.table import Measured
from common.db.database import new_id
from common.testing.plugin import eventually, private_database
from common.testing.token_issuer import TokenIssuer
from waybill_dev.base.program import die_with_parent

ROOT = Path(__file__).parents[1]
MIGRATIONS = ROOT / "services/orders/migrations"
SKUS = ("BENCH-1", "BENCH-2", "BENCH-3")
ISSUER = TokenIssuer()


class Shop:
    """`urls` and `pids` are keyed by server: `orders` and, if opened, the ceilings `raw` and `tutorial`.

    Each load returns responses per second as "", their `p50` and `p99` in ms, the client's `share` of a core, and the
    microseconds of processor time a response of the server as `api`, and of `postgres`.
    """

    def __init__(self, database_url: str, connections: int) -> None:
        self.database_url = database_url
        self.customers = [new_id() for _ in range(connections)]
        self.urls: dict[str, str] = {}
        self.pids: dict[str, int] = {}

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    def bearer(self, customer: UUID) -> str:
        return f"Bearer {ISSUER.mint(customer)}"

    async def place(self, seconds: float) -> Measured:
        """Places orders of three lines, each with its own idempotency key."""
        body = json.dumps({"lines": [{"sku": sku, "quantity": 2} for sku in SKUS], "note": "by the door"}).encode()
        return await self._load("orders", [self._keyed(customer, body) for customer in self.customers], seconds)

    def _keyed(self, customer: UUID, body: bytes) -> Iterator[bytes]:
        key = "0" * 32
        head, tail = request("POST", "/orders", body, authorization=self.bearer(customer), idempotency_key=key).split(
            key.encode()
        )
        return (head + new_id().hex.encode() + tail for _ in itertools.count())

    async def confirm(self, seconds: float) -> Measured:
        """Confirms orders that were placed before, as staff."""
        async with self.database() as database:
            rows = await database.fetch("SELECT id FROM orders WHERE status = 'placed'")
        bearer = f"Bearer {ISSUER.mint(roles=('staff',))}"
        requests = [request("POST", f"/orders/{row['id']}/confirm", authorization=bearer) for row in rows]
        shares = [iter(requests[first :: len(self.customers)]) for first in range(len(self.customers))]
        return await self._load("orders", shares, seconds)

    async def read(self, seconds: float) -> Measured:
        """Reads orders by id, each as its customer."""
        async with self.database() as database:
            requests = []
            for customer in self.customers:
                rows = await database.fetch("SELECT id FROM orders WHERE customer_id = $1 LIMIT 200", customer)
                bearer = self.bearer(customer)
                requests.append([request("GET", f"/orders/{row['id']}", authorization=bearer) for row in rows])
        return await self._load("orders", [itertools.cycle(own) for own in requests], seconds)

    async def insert(self, seconds: float) -> Measured:
        """`raw`: one INSERT … RETURNING."""
        body = json.dumps({"customer_id": str(self.customers[0]), "amount": 4900, "note": "by the door"}).encode()
        return await self._repeat("raw", request("POST", "/records", body), seconds)

    async def select(self, seconds: float) -> Measured:
        """`raw`: one SELECT."""
        return await self._repeat("raw", request("GET", "/records/1"), seconds)

    async def hello(self, seconds: float) -> Measured:
        return await self._repeat("raw", request("GET", "/"), seconds)

    async def follow_tutorial(self, seconds: float) -> Measured:
        lines = [{"sku": sku, "quantity": 2, "amount": 4900} for sku in SKUS]
        body = json.dumps({"customer_id": str(self.customers[0]), "note": "by the door", "lines": lines}).encode()
        return await self._repeat("tutorial", request("POST", "/orders", body), seconds)

    async def _repeat(self, server: str, one: bytes, seconds: float) -> Measured:
        return await self._load(server, [itertools.repeat(one) for _ in self.customers], seconds)

    async def _load(self, server: str, requests: Sequence[Iterator[bytes]], seconds: float) -> Measured:
        used = Stopwatch({"api": self.pids[server], "postgres": processes()["postgres"]})
        load = await saturate(self.urls[server], requests, seconds)
        spent = used.per_event(len(load.latencies))
        return {"": load.rate, "p50": load.p50, "p99": load.p99, "share": load.share, **spent}


@asynccontextmanager
async def open_shop(*servers: str, connections: int) -> AsyncIterator[Shop]:
    """Creates a database with products to order and one record to select, and starts `servers` on it."""
    async with AsyncExitStack() as stack:
        shop = Shop(await stack.enter_async_context(private_database(MIGRATIONS)), connections)
        async with shop.database() as database:
            await database.execute(RECORDS)
            await database.execute("INSERT INTO records (customer_id, amount) VALUES (gen_random_uuid(), 4900)")
            for sku in SKUS:
                await database.execute(
                    "INSERT INTO products (sku, name, price_amount, price_currency, active, created_at, updated_at)"
                    " VALUES ($1, 'Desk lamp', 4900, 'EUR', true, now(), now())",
                    sku,
                )
        for server in servers:
            url, pid = await stack.enter_async_context(serving(server, shop.database_url))
            shop.urls[server], shop.pids[server] = url, pid
        yield shop


@asynccontextmanager
async def serving(app: str, database_url: str) -> AsyncIterator[tuple[str, int]]:
    """Runs a server of `app` in its own process and yields its URL and process id."""
    app_request = {"app": app, "database_url": database_url, "issuer": ISSUER.issuer, "jwk": ISSUER.jwks["keys"][0]}
    # It writes its log, as in production.
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-m", "bench.serve"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - there is only one thread
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(app_request) + "\n")
        process.stdin.flush()
        url = f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"

        async def responds() -> bool:
            async with httpx.AsyncClient(base_url=url) as client:
                return (await client.get("/openapi.json")).status_code == 200

        await eventually(responds, within=30)
        yield url, process.pid
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        process.stdin.close()
        process.stdout.close()
