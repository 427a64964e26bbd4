"""Confirmed publishing with many bound queues: the broker confirms a message when all of them have it."""

from time import perf_counter

from aiormq import Channel

from bench.backbone import TYPE, publish
from bench.scale import Scale
from bench.table import Measured, Rounds, Table
from common.db.database import new_id, utc_now
from common.messaging import broker
from common.messaging.cloudevents import Envelope, encode
from common.testing.plugin import private_vhost

LIMIT = 60.0
QUEUES = (1, 5, 20, 50)
COPIES = 2
"""For each of `scale.events`: how many messages all queues of one measurement receive together."""
ALONE = 50


async def run(scale: Scale, table: Table) -> None:
    rounds = Rounds()
    for _ in range(min(scale.rounds, 3)):
        for queues in QUEUES:
            events = max(ALONE, scale.events * COPIES // (queues + 1))
            await rounds.measure(str(queues), _confirms, queues, events, within=LIMIT)
    for queues in QUEUES:
        name, label = str(queues), f"{queues} bound queue{'s' * (queues > 1)}"
        ratio = rounds.ratio(name, str(QUEUES[0])) if queues > 1 else None
        table.add(
            f"confirmed publish, {label}, and ÷ one", rounds.median(name), "/s", ratio=ratio, key=f"fan-out {queues}"
        )
    for queues in QUEUES:
        name, label = str(queues), f"{queues} bound queue{'s' * (queues > 1)}"
        table.add(f"a confirm alone, {label}", rounds.median(name, "alone"), "ms", key=f"confirm {queues}")
        key = f"a message to {queues}: RabbitMQ"
        table.add(f"processor time of RabbitMQ, {label}", rounds.median(name, "rabbitmq"), "µs", key=key)


async def _confirms(queues: int, events: int) -> Measured:
    async with private_vhost() as url, broker.connect(url, "bench") as amqp:
        channel = await broker.raw_channel(amqp, confirms=True)
        await channel.exchange_declare("fan.events", exchange_type="topic", durable=True)
        for number in range(queues):
            queue = f"subscriber.{number}"
            await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            await channel.queue_bind(queue, "fan.events", routing_key="#")
        alone = await _alone(channel)
        return {**await publish(channel, "fan.events", TYPE, events), "alone": alone}


async def _alone(channel: Channel) -> float:
    """Milliseconds of a confirm with nothing else to do."""
    body, properties = encode(Envelope(new_id(), TYPE, "1", 1, utc_now(), '{"number": 1}'))
    began = perf_counter()
    for _ in range(ALONE):
        await channel.basic_publish(body, exchange="fan.events", routing_key=TYPE, properties=properties)
    return (perf_counter() - began) / ALONE * 1000
