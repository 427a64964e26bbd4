"""`POST /orders`, through authentication, pricing, idempotency and outbox, and a change of state, against one INSERT
and a tutorial.
"""

from bench.scale import Scale
from bench.shop import open_shop
from bench.table import Goal, Rounds, Table

LIMIT = 30.0


async def run(scale: Scale, table: Table) -> None:
    rounds = Rounds()
    async with open_shop("orders", "raw", "tutorial", connections=scale.connections) as shop:
        loads = {
            "raw": shop.insert,
            "orders": shop.place,
            "confirm": shop.confirm,
            "tutorial": shop.follow_tutorial,
        }
        for name, load in loads.items():  # warms up
            await Rounds().measure(name, load, 0.5, within=LIMIT)
        await rounds.measure("hello", shop.hello, scale.seconds, within=LIMIT)
        for _ in range(scale.rounds):
            for name, load in loads.items():
                await rounds.measure(name, load, scale.seconds, within=LIMIT)
    table.add("FastAPI saying hello", rounds.median("hello"), "/s")
    table.add("FastAPI + one asyncpg INSERT … RETURNING (raw1)", rounds.median("raw"), "/s", key="raw1")
    table.add("the usual tutorial: ORM + BackgroundTasks", rounds.median("tutorial"), "/s", key="tutorial")
    table.add("POST /orders", rounds.median("orders"), "/s", key="place")
    table.add("a change of state, by staff", rounds.median("confirm"), "/s", key="change")
    table.add("POST /orders ÷ raw1", ratio=rounds.ratio("orders", "raw"), goal=Goal(1.0, 1.2), key="place ÷ raw1")
    table.add(
        "a change of state ÷ raw1", ratio=rounds.ratio("confirm", "raw"), goal=Goal(0.6, 0.8), key="change ÷ raw1"
    )
    ratio = rounds.ratio("orders", "tutorial")
    table.add("POST /orders ÷ the usual tutorial", ratio=ratio, goal=Goal(8, 10), key="place ÷ tutorial")
    for name, label in (("raw", "raw1"), ("tutorial", "the tutorial"), ("confirm", "a change"), ("orders", "an order")):
        goal = Goal(3, 2, at_most=True) if name == "orders" else None
        ratio = rounds.ratio(name, name, "p99", "p50")
        table.add(f"p99 of {label}, and ÷ p50", rounds.median(name, "p99"), "ms", ratio=ratio, goal=goal)
    for name, label in (("raw", "raw1"), ("orders", "an order"), ("confirm", "a change")):
        for part, process in (("api", "the API"), ("postgres", "PostgreSQL")):
            key = f"{label}: {process}"
            table.add(f"processor time of {process} for {label}", rounds.median(name, part), "µs", key=key)
    table.add("the load's own share of a core, at hello", rounds.median("hello", "share"))
    table.add("the load's own share of a core, at POST /orders", rounds.median("orders", "share"))
