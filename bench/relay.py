"""The relay from a full outbox to an empty one, against confirmed publishing with the same driver."""

from bench.backbone import backbone, partitioned, raw_publish, relay_catches_up
from bench.scale import Scale
from bench.table import Goal, Rounds, Table

LIMIT = 30.0
SETTING = "relay_partitions"
PARTITIONS = (2, 4)


async def run(scale: Scale, table: Table) -> None:
    rounds = Rounds()
    async with backbone() as settings:
        one = partitioned(settings, SETTING, 1) or settings
        more = {f"P = {count}": partitioned(settings, SETTING, count) for count in PARTITIONS}
        for _ in range(scale.rounds):
            await rounds.measure("raw", raw_publish, settings, scale.events, within=LIMIT)
            await rounds.measure("P = 1", relay_catches_up, one, scale.events, within=LIMIT)
            for name, each in more.items():
                if each is None:
                    rounds.skip(name, f"this version has no {SETTING}")
                else:
                    await rounds.measure(name, relay_catches_up, each, scale.events, within=LIMIT)
    table.add("confirmed publish, 500 at a time", rounds.median("raw"), "/s", key="publish")
    table.add("the relay catching up, P = 1", rounds.median("P = 1"), "/s", key="relay, P = 1")
    ratio = rounds.ratio("P = 1", "raw")
    table.add("relay ÷ confirmed publish", ratio=ratio, goal=Goal(0.9, 0.95), key="relay ÷ publish")
    for name in more:
        ratio = rounds.ratio(name, "P = 1")
        table.add(f"the relay, {name}, and ÷ P = 1", rounds.median(name), "/s", ratio=ratio, key=f"relay, {name}")
    built = [(name, name) for name, each in more.items() if each is not None]
    for label, name in (("an event published", "raw"), ("an event relayed", "P = 1"), *built):
        for part, process in (("bench", "this process"), ("postgres", "PostgreSQL"), ("rabbitmq", "RabbitMQ")):
            if (name, part) != ("raw", "postgres"):
                what = f"processor time of {process}: {label}"
                table.add(what, rounds.median(name, part), "µs", key=f"{label}: {process}")
    if built:
        ratio = rounds.ratio("P = 1", "P = 4", "bench")
        table.add("processor time of this process, P = 1 ÷ P = 4", ratio=ratio)
