"""From an order's commit to its notification's commit, against publish → receipt of a bare message at the same rate.

Both ends are commit timestamps of one PostgreSQL server, so nothing is probed and no clocks are compared.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
from aiormq import spec
from aiormq.abc import DeliveredMessage

from bench.identity import Connection
from bench.scale import Scale
from bench.table import Goal, Measured, Rounds, Table, percentile
from common.messaging import broker
from common.testing.plugin import eventually, private_vhost
from waybill_dev.base.state import find_state
from waybill_dev.supervision import control

LIMIT = 120.0
RATES = (20, 500)
CONNECTIONS = 16
SKU = "BENCH-1"
PRODUCT = {"name": "Desk lamp", "price": {"amount": 4900, "currency": "EUR"}, "active": True}
ORDER = json.dumps({"lines": [{"sku": SKU, "quantity": 1}]})
JSON = "application/json"


async def run(scale: Scale, table: Table) -> None:
    rounds, status = Rounds(), await with_commit_times()
    bearer = await open_shop(status)
    for rate in RATES:
        raw, orders, count = f"raw {rate}", f"orders {rate}", int(rate * scale.seconds) + 1
        for _ in range(min(scale.rounds, 3)):
            await rounds.measure(raw, _publish_and_receive, rate, count, within=LIMIT)
            await rounds.measure(orders, order_and_notify, status, bearer, rate, count, within=LIMIT)
        for name, label in ((raw, "publish → receipt"), (orders, "order → notification")):
            for part in ("p50", "p99"):
                table.add(f"{label} at {rate}/s, {part}", rounds.median(name, part), "ms", key=f"{label} {rate} {part}")
        ratio = rounds.ratio(orders, raw, "p99")
        table.add(f"p99 ÷ p99 at {rate}/s", ratio=ratio, goal=Goal(5, 3, at_most=True), key=f"latency ratio {rate}")


async def with_commit_times() -> dict[str, Any]:
    """Makes PostgreSQL keep the times of commits, for which it has to restart. Returns the system's status."""
    state = find_state()
    status: dict[str, Any] = control.call(state, "status")
    server = await asyncpg.connect(status["postgres"]["url"])
    kept = await server.fetchval("SHOW track_commit_timestamp")
    await server.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    await server.close()
    if kept != "on":
        await asyncio.to_thread(control.call, state, "restart", "postgres")
    return status


async def open_shop(status: dict[str, Any]) -> str:
    """Returns the token of a customer without mails, whose cost would be measured too."""
    connection = Connection(status["gateway"])
    preferences = json.dumps({"order_updates": False, "welcome": False})

    async def opened() -> str:
        _, admin = await connection.sign_in(status["admin"]["email"], status["admin"]["password"])
        listed, _ = await connection.call("PUT", f"/products/{SKU}", json.dumps(PRODUCT), JSON, admin)
        assert listed in {200, 201}
        _, email, password = await connection.sign_up()
        _, bearer = await connection.sign_in(email, password)
        assert (await connection.call("PUT", "/notification-preferences", preferences, JSON, bearer))[0] == 200
        return bearer

    return await eventually(opened, within=60)  # the services reconnect to the restarted PostgreSQL


async def paced(one: Callable[[], Awaitable[None]], rate: float, count: int) -> None:
    """Starts each call on schedule, whether or not the previous ones have ended (an open loop)."""
    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - perf_counter()))
            group.create_task(_as_coroutine(one))


async def _as_coroutine(one: Callable[[], Awaitable[None]]) -> None:
    await one()


async def _publish_and_receive(rate: int, count: int) -> Measured:
    async with private_vhost() as url, broker.connect(url, "bench") as amqp, broker.connect(url, "bench") as other:
        channel, receiving = (
            await broker.raw_channel(amqp, confirms=True),
            await broker.raw_channel(other, confirms=False),
        )
        await channel.queue_declare("raw", durable=True, arguments={"x-queue-type": "quorum"})
        sent: dict[str, float] = {}
        lags: list[float] = []

        async def receive(message: DeliveredMessage) -> None:
            lags.append((perf_counter() - sent[message.header.properties.message_id or ""]) * 1000)
            await receiving.basic_ack(message.delivery_tag or 0)

        async def publish() -> None:
            message_id = str(len(sent))
            sent[message_id] = perf_counter()
            properties = spec.Basic.Properties(message_id=message_id, delivery_mode=2)
            await channel.basic_publish(ORDER.encode(), routing_key="raw", properties=properties)

        async def all_received() -> bool:
            return len(lags) == count

        await receiving.basic_qos(prefetch_count=300)
        await receiving.basic_consume("raw", receive)
        await paced(publish, rate, count)
        await eventually(all_received, within=60)
        return percentiles(lags)


async def order_and_notify(status: dict[str, Any], bearer: str, rate: float, count: int) -> dict[str, float]:
    """The milliseconds from commit to commit as `p50` and `p99`, and as `rate` the orders a second until all are
    notified. An infinite `rate` keeps all connections busy.
    """
    return await lags_of(status, await place(status, bearer, rate, count))


async def place(status: dict[str, Any], bearer: str, rate: float, count: int) -> list[UUID]:
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(Connection(status["services"]["orders"]["url"]))
    ids: list[UUID] = []

    async def order() -> None:
        connection = await free.get()
        answered, content = await connection.call("POST", "/orders", ORDER, JSON, bearer)
        assert answered == 201, content
        ids.append(UUID(content["id"]))
        free.put_nowait(connection)

    await paced(order, rate, count)
    return ids


async def lags_of(status: dict[str, Any], ids: list[UUID]) -> dict[str, float]:
    # The count is cheap; the commits are read once.
    await until_notified(status, ids)
    notified = await commits(status, "notifier", "SELECT order_id AS id, xmin FROM notifications", "order_id", ids)
    placed = await commits(status, "orders", "SELECT id, xmin FROM orders", "id", ids)
    lags = [(notified[order_id] - placed[order_id]) * 1000 for order_id in ids]
    return {**percentiles(lags), "rate": len(ids) / (max(notified.values()) - min(placed.values()))}


async def until_notified(status: dict[str, Any], ids: list[UUID]) -> None:
    first = datetime.fromtimestamp((min(ids).int >> 80) / 1000, UTC)  # the time in an id (RFC 9562 §5.7)
    condition = "SELECT count(*) >= $1 FROM notifications WHERE created_at >= $2"
    await until(status, "notifier", condition, len(ids), first)


async def until(status: dict[str, Any], database: str, condition: str, *arguments: Any) -> None:
    """Waits until the query `condition` is true in a service's database."""
    connection = await asyncpg.connect(_database(status, database))

    async def is_true() -> bool:
        return bool(await connection.fetchval(condition, *arguments))

    try:
        await eventually(is_true, within=LIMIT)
    finally:
        await connection.close()


def _database(status: dict[str, Any], name: str) -> str:
    url: str = status["postgres"]["url"]
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def percentiles(lags: list[float]) -> dict[str, float]:
    return {"p50": percentile(lags, 50), "p99": percentile(lags, 99)}


async def commits(status: dict[str, Any], database: str, rows: str, key: str, ids: list[UUID]) -> dict[UUID, float]:
    """The Unix times at which the transactions that wrote the rows were committed."""
    connection = await asyncpg.connect(_database(status, database))
    try:
        found = await connection.fetch(
            "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at"  # noqa: S608 - our own words
            f" FROM ({rows} WHERE {key} = ANY($1::uuid[])) AS written",
            ids,
        )
    finally:
        await connection.close()
    return {row["id"]: row["at"] for row in found}
