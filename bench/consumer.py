"""The consumer, with an inbox row and one insert per message, against aio-pika that only acknowledges."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bench.backbone import ShopSettings, backbone, consumer_with_inbox, partitioned, raw_consume
from bench.scale import Scale
from bench.table import Goal, Rounds, Table

LIMIT = 30.0
SETTING = "queue_partitions"
QUEUES = (2, 4)


async def run(scale: Scale, table: Table) -> None:
    rounds, names = Rounds(), [f"Q = {count}" for count in QUEUES]
    async with _backbones() as backbones:
        for _ in range(scale.rounds):
            await rounds.measure("raw", raw_consume, backbones[1], scale.events, within=LIMIT)
            for count, settings in backbones.items():
                await rounds.measure(f"Q = {count}", consumer_with_inbox, settings, scale.events, within=LIMIT)
        for count in QUEUES:
            if count not in backbones:
                rounds.skip(f"Q = {count}", f"this version has no {SETTING}")
    table.add("aio-pika, prefetch 50, an ack each", rounds.median("raw"), "/s", key="consume")
    table.add("the consumer, with inbox and effect, Q = 1", rounds.median("Q = 1"), "/s", key="consumer, Q = 1")
    ratio = rounds.ratio("Q = 1", "raw")
    table.add("consumer ÷ aio-pika", ratio=ratio, goal=Goal(1.1, 1.4), key="consumer ÷ consume")
    for name in names:
        ratio = rounds.ratio(name, "Q = 1")
        table.add(f"the consumer, {name}, and ÷ Q = 1", rounds.median(name), "/s", ratio=ratio, key=f"consumer, {name}")
    built = [(f"Q = {count}", f"Q = {count}") for count in QUEUES if count in backbones]
    for label, name in (("a message acknowledged", "raw"), ("an event consumed", "Q = 1"), *built):
        for part, process in (("bench", "this process"), ("postgres", "PostgreSQL"), ("rabbitmq", "RabbitMQ")):
            if (name, part) != ("raw", "postgres"):
                what = f"processor time of {process}: {label}"
                table.add(what, rounds.median(name, part), "µs", key=f"{label}: {process}")


@asynccontextmanager
async def _backbones() -> AsyncIterator[dict[int, ShopSettings]]:
    """A backbone for each number of queues that this version can have."""
    async with AsyncExitStack() as stack:
        found = {}
        for count in (1, *QUEUES):
            settings = partitioned(await stack.enter_async_context(backbone()), SETTING, count)
            if settings is not None:
                found[count] = settings
        yield found
