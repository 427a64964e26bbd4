"""`GET /orders/{id}`, an order of three lines by its customer, against FastAPI with one SELECT of one row."""

from bench.scale import Scale
from bench.shop import open_shop
from bench.table import Goal, Rounds, Table


async def run(scale: Scale) -> Table:
    table, rounds = Table(), Rounds()
    async with open_shop("orders", "raw", connections=scale.connections) as shop:
        await shop.place(1.0)  # the orders to read
        await shop.select(0.5)
        await shop.read(0.5)
        for _ in range(scale.rounds):
            for name, load in (("raw", await shop.select(scale.seconds)), ("orders", await shop.read(scale.seconds))):
                rounds.add(name, load.rate)
                rounds.add(f"{name} p50", load.p50)
                rounds.add(f"{name} p99", load.p99)
                rounds.add(f"{name} client", load.share)
    table.add("FastAPI + one asyncpg SELECT", rounds.median("raw"), "/s")
    table.add("GET /orders/{id}", rounds.median("orders"), "/s")
    table.add("GET /orders/{id} ÷ one SELECT", ratio=rounds.ratio("orders", "raw"), goal=Goal(0.85, 0.95))
    table.add("p99, and ÷ p50", rounds.median("orders p99"), "ms", ratio=rounds.ratio("orders p99", "orders p50"))
    table.add("the load's own share of a core", rounds.median("orders client"))
    return table
