"""Placing, reading and relaying with many orders and outbox rows, against the same with almost none."""

from typing import Any

import asyncpg

from bench.backbone import backbone, relay_catches_up
from bench.scale import Scale
from bench.shop import open_shop
from bench.table import Goal, Rounds, Table

GOAL = Goal(0.9)
LIMIT = 60.0
# The ids sort before all new ones, and each customer has a thousand orders, as after years of trade.
ORDERS = """
    INSERT INTO orders (id, customer_id, status, total_amount, currency, version, created_at, updated_at)
    SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n / 1000), 32, 'a')::uuid, 'placed', 9800, 'EUR', 1,
        now() - interval '1 day', now() - interval '1 day' FROM generate_series(1, $1::bigint) n"""
LINES = """
    INSERT INTO order_lines (order_id, position, sku, name, quantity, unit_amount)
    SELECT id, 1, 'BENCH-1', 'Desk lamp', 2, 4900 FROM orders"""
TIMELINE = """
    INSERT INTO order_timeline (order_id, version, type, occurred_at, data)
    SELECT id, 1, 'orders.order.placed.v1', created_at, '{}' FROM orders"""
WAITING = """
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)
    SELECT gen_random_uuid(), 'orders.order.placed.v1', n::text, 1, now(), '{}' FROM generate_series(1, $1::int) n"""


async def run(scale: Scale, table: Table) -> None:
    rounds = Rounds()
    async with (
        open_shop("orders", connections=scale.connections) as empty,
        open_shop("orders", connections=scale.connections) as full,
    ):
        async with full.database() as database:
            await _fill(database, scale)
        for shop in (empty, full):
            await shop.place(1.0)
        for _ in range(scale.rounds):
            for name, shop in (("empty", empty), ("full", full)):
                await rounds.measure(f"{name} placing", shop.place, scale.seconds, within=LIMIT)
                await rounds.measure(f"{name} reading", shop.read, scale.seconds, within=LIMIT)
    async with backbone() as settings:
        for _ in range(min(scale.rounds, 2)):
            for name, rows in (("empty", scale.events), ("full", scale.waiting)):
                await rounds.measure(f"{name} relay", relay_catches_up, settings, rows, within=600)
    size = f"{scale.orders:,} orders and {scale.waiting:,} waiting rows"
    for label, name in (("POST /orders", "placing"), ("GET /orders/{id}", "reading")):
        table.add(f"{label}, few orders", rounds.median(f"empty {name}"), "/s")
        ratio = rounds.ratio(f"full {name}", f"empty {name}")
        table.add(
            f"{label}, {size}, ÷ few", rounds.median(f"full {name}"), "/s", ratio=ratio, goal=GOAL, key=f"size: {name}"
        )
    table.add(f"the relay, {scale.events:,} waiting rows", rounds.median("empty relay"), "/s")
    ratio = rounds.ratio("full relay", "empty relay")
    table.add(
        f"the relay, {scale.waiting:,} ÷ that",
        rounds.median("full relay"),
        "/s",
        ratio=ratio,
        goal=GOAL,
        key="size: relay",
    )


async def _fill(database: asyncpg.Connection, scale: Scale) -> None:
    steps: list[tuple[str, tuple[Any, ...]]] = [
        (ORDERS, (scale.orders,)),
        (LINES, ()),
        (TIMELINE, ()),
        (WAITING, (scale.waiting,)),
    ]
    for statement, arguments in steps:
        await database.execute(statement, *arguments, timeout=3600)
    await database.execute("VACUUM ANALYZE", timeout=3600)
    await database.execute("CHECKPOINT", timeout=3600)
