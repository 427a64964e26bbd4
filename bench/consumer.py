"""The consumer, with an inbox row and one insert per message, against aio-pika that only acknowledges."""

from bench.backbone import backbone, consumer_with_inbox, raw_consume
from bench.scale import Scale
from bench.table import Goal, Rounds, Table


async def run(scale: Scale) -> Table:
    table, rounds = Table(), Rounds()
    async with backbone() as settings:
        for _ in range(scale.rounds):
            rounds.add("raw", await raw_consume(settings, scale.events))
            rounds.add("consumer", await consumer_with_inbox(settings, scale.events))
    table.add("aio-pika, prefetch 50, an ack each", rounds.median("raw"), "/s")
    table.add("the consumer, with inbox and effect", rounds.median("consumer"), "/s")
    table.add("consumer ÷ aio-pika", ratio=rounds.ratio("consumer", "raw"), goal=Goal(1.1, 1.4))
    return table
