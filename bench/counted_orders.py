"""Counts an order and a change of its state."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from pydantic import SecretStr

from bench.meter import Cost, Meter, metered
from bench.shop import ISSUER, MIGRATIONS, SKUS
from common.db.database import new_id, utc_now
from common.db.driver import Endpoint
from common.db.driver_pool import DriverPool
from common.runtime.health import Health
from common.testing.api_client import api_client
from orders.app import create_app
from orders.placing import NewOrder, insert_orders
from orders.settings import Settings

REQUESTS: Final = 40
WARM_UP: Final = 10
"""Requests before them: connections open, and statements are prepared, once."""
GROUP: Final = 32
LINES: Final = [(sku, 2) for sku in SKUS]


@asynccontextmanager
async def _shop() -> AsyncIterator[tuple[Meter, httpx.AsyncClient]]:
    """The API of orders, with a catalogue."""
    async with (
        metered(MIGRATIONS) as meter,
        api_client(create_app(_settings(meter.url), Health(), tokens=ISSUER.verifier("orders"))) as client,
    ):
        for sku, _ in LINES:
            product = {"name": "Desk lamp", "price": {"amount": 4900, "currency": "EUR"}, "active": True}
            await client.put(f"/products/{sku}", json=product, headers=ISSUER.bearer(roles=("staff",)))
        yield meter, client


def _settings(database_url: str) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        amqp_url=SecretStr("amqp://nobody@broker.invalid/"),
        client_secret=SecretStr("unused"),
        public_url=ISSUER.issuer,
        auth_url="http://auth.invalid",
    )


async def _place(client: httpx.AsyncClient) -> str:
    body = {"lines": [{"sku": sku, "quantity": quantity} for sku, quantity in LINES]}
    answer = await client.post("/orders", json=body, headers={**ISSUER.bearer(), "Idempotency-Key": new_id().hex})
    placed: str = answer.raise_for_status().json()["id"]
    return placed


async def _confirm(client: httpx.AsyncClient, order: str) -> None:
    answer = await client.post(f"/orders/{order}/confirm", headers=ISSUER.bearer(roles=("staff",)))
    answer.raise_for_status()


async def _one_by_one(meter: Meter, requests: list[Callable[[], Awaitable[Any]]]) -> Cost:
    """Each NOTIFY is awaited, so that it is not shared by two requests."""
    costs = []
    for number, request in enumerate(requests):
        if number == WARM_UP:
            await meter.begin()
        before = len(meter.transactions())
        await request()
        await meter.notified(max(1, number + 1 - WARM_UP * (number >= WARM_UP)))
        costs.append(meter.transactions()[before:])
    return await meter.of_request(costs[WARM_UP:])


async def order() -> Cost:
    async with _shop() as (meter, client):
        return await _one_by_one(meter, [lambda: _place(client)] * (WARM_UP + REQUESTS))


async def change() -> Cost:
    async with _shop() as (meter, client):
        placed = [await _place(client) for _ in range(WARM_UP + REQUESTS)]
        await meter.notified(1)
        await meter.begin()
        return await _one_by_one(meter, [lambda each=each: _confirm(client, each) for each in placed])  # type: ignore[misc]


async def order_in_a_group() -> Cost:
    async with _shop() as (meter, _):
        driver = DriverPool(Endpoint(meter.url), size=1, timeout=10, name="bench")
        for number in range(WARM_UP + REQUESTS):
            if number == WARM_UP:
                await meter.begin()
            await insert_orders(driver, [_new_order() for _ in range(GROUP)])
        await driver.close()
        return await meter.of_batches("INSERT INTO orders", REQUESTS * GROUP, GROUP, rows=len(LINES))


def _new_order() -> NewOrder:
    return NewOrder(
        id=new_id(),
        customer_id=new_id(),
        note=None,
        placed_at=utc_now(),
        lines=LINES,
        idempotency_key=new_id().hex,
        request_hash=b"0" * 32,
        event_id=new_id(),
        traceparent=None,
    )
