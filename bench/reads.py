"""`GET /orders/{id}`, an order of three lines by its customer, against FastAPI with one SELECT of one row."""

from bench.scale import Scale
from bench.shop import open_shop
from bench.table import Goal, Rounds, Table

LIMIT = 30.0


async def run(scale: Scale, table: Table) -> None:
    rounds = Rounds()
    async with open_shop("orders", "raw", connections=scale.connections) as shop:
        await shop.place(1.0)  # the orders to read
        await shop.select(0.5)
        await shop.read(0.5)
        for _ in range(scale.rounds):
            await rounds.measure("raw", shop.select, scale.seconds, within=LIMIT)
            await rounds.measure("orders", shop.read, scale.seconds, within=LIMIT)
    table.add("FastAPI + one asyncpg SELECT", rounds.median("raw"), "/s", key="select")
    table.add("GET /orders/{id}", rounds.median("orders"), "/s", key="read")
    ratio = rounds.ratio("orders", "raw")
    table.add("GET /orders/{id} ÷ one SELECT", ratio=ratio, goal=Goal(0.85, 0.95), key="read ÷ select")
    ratio = rounds.ratio("orders", "orders", "p99", "p50")
    table.add("p99, and ÷ p50", rounds.median("orders", "p99"), "ms", ratio=ratio)
    for part, process in (("api", "the API"), ("postgres", "PostgreSQL")):
        what = f"processor time of {process} for a read"
        table.add(what, rounds.median("orders", part), "µs", key=f"a read: {process}")
    table.add("the load's own share of a core", rounds.median("orders", "share"))
