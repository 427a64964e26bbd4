"""`POST /orders`, through authentication, pricing, idempotency and outbox, against one INSERT and a tutorial."""

from bench.scale import Scale
from bench.shop import Shop, open_shop
from bench.table import Goal, Rounds, Table


async def run(scale: Scale) -> Table:
    table, rounds = Table(), Rounds()
    async with open_shop("orders", "raw", "tutorial", connections=scale.connections) as shop:
        await _warm_up(shop)
        hello = await shop.hello(scale.seconds)
        for _ in range(scale.rounds):
            for name, load in (
                ("raw", await shop.insert(scale.seconds)),
                ("orders", await shop.place(scale.seconds)),
                ("confirm", await shop.confirm(scale.seconds)),
                ("tutorial", await shop.follow_tutorial(scale.seconds)),
            ):
                rounds.add(name, load.rate)
                rounds.add(f"{name} p50", load.p50)
                rounds.add(f"{name} p99", load.p99)
                rounds.add(f"{name} client", load.share)
    table.add("FastAPI saying hello", hello.rate, "/s")
    table.add("FastAPI + one asyncpg INSERT … RETURNING (raw1)", rounds.median("raw"), "/s")
    table.add("the usual tutorial: ORM + BackgroundTasks", rounds.median("tutorial"), "/s")
    table.add("POST /orders", rounds.median("orders"), "/s")
    table.add("a change of state, by staff", rounds.median("confirm"), "/s")
    table.add("POST /orders ÷ raw1", ratio=rounds.ratio("orders", "raw"), goal=Goal(0.85, 1.2))
    table.add("a change of state ÷ raw1", ratio=rounds.ratio("confirm", "raw"), goal=Goal(0.6, 0.8))
    table.add("POST /orders ÷ the usual tutorial", ratio=rounds.ratio("orders", "tutorial"), goal=Goal(5, 7))
    for name, label in (("raw", "raw1"), ("tutorial", "the tutorial"), ("orders", "POST /orders")):
        goal = Goal(3, 2, at_most=True) if name == "orders" else None
        table.add(
            f"p99 of {label}, and ÷ p50",
            rounds.median(f"{name} p99"),
            "ms",
            ratio=rounds.ratio(f"{name} p99", f"{name} p50"),
            goal=goal,
        )
    table.add("the load's own share of a core, at hello", hello.share)
    table.add("the load's own share of a core, at POST /orders", rounds.median("orders client"))
    return table


async def _warm_up(shop: Shop) -> None:
    for load in (shop.insert, shop.place, shop.confirm, shop.follow_tutorial):
        await load(0.5)
