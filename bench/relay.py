"""The relay from a full outbox to an empty one, against confirmed publishing with the same driver."""

from bench.backbone import backbone, raw_publish, relay_catches_up
from bench.scale import Scale
from bench.table import Goal, Rounds, Table


async def run(scale: Scale) -> Table:
    table, rounds = Table(), Rounds()
    async with backbone() as settings:
        for _ in range(scale.rounds):
            rounds.add("raw", await raw_publish(settings, scale.events))
            rounds.add("relay", await relay_catches_up(settings, scale.events))
    table.add("confirmed publish, 500 at a time", rounds.median("raw"), "/s")
    table.add("the relay catching up", rounds.median("relay"), "/s")
    table.add("relay ÷ confirmed publish", ratio=rounds.ratio("relay", "raw"), goal=Goal(0.9, 0.95))
    return table
