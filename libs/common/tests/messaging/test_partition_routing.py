"""Several queues: where messages go, what is refused, and what happens to messages in a queue that is not in use."""

import json
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq import Channel

from common.db.database import Database, new_id, utc_now
from common.messaging import broker, topology
from common.messaging.cloudevents import Envelope, encode
from common.messaging.partitions import state
from common.messaging.topology import bind_consumer, declare_queues, inbound_queues
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .consuming import POISON, consuming, effects, has_effect, parked, publish

SOLD = "shop.item.sold.v1"
KEY = "cloudEvents_partitionkey"


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    return settings.model_copy(update={"queue_partitions": 4})


def sold(number: int, subject: str = "item", headers: dict[str, Any] | None = None) -> aio_pika.Message:
    body, properties = encode(Envelope(new_id(), SOLD, subject, 1, utc_now(), json.dumps({"number": number})))
    own = {**(properties.headers or {}), **(headers or {})}
    own = {name: value for name, value in own.items() if value is not None}
    return aio_pika.Message(body, headers=own, message_id=properties.message_id, content_type="application/json")


async def test_events_through_their_producers_exchanges_are_processed_and_no_others(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    """The broker keeps the exchange that a message was published to, whatever exchanges are bound to it."""
    async with consuming(settings, database):
        mint = await channel.declare_exchange("mint.events", "topic", durable=True)
        shared = await channel.get_exchange("shop.inbound.by_key")
        await shared.bind(mint, "#")
        await mint.publish(sold(1), SOLD)
        await shared.publish(sold(2), SOLD)
        await channel.default_exchange.publish(sold(3), "shop.inbound.0")
        await (await channel.get_exchange("shop.events")).publish(sold(4), SOLD)
        await (await channel.get_exchange("shop.replay")).publish(sold(5), "shop.inbound")
        await eventually(lambda: has_effect(database, "4"))
        await eventually(lambda: has_effect(database, "5"))

        async def are_parked() -> bool:
            return [row.cause for row in await parked(database)] == ["forged"] * 3

        await eventually(are_parked)
    assert sorted(await effects(database)) == ["4", "5"]


async def test_a_failing_message_is_retried_and_parked_as_with_one_queue(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        await publish(channel, POISON)
        ((_, cause, attempts, _, _),) = await eventually(lambda: parked(database))
    assert (cause, attempts) == ("ValueError: thirteen", 4)


async def test_events_are_shared_by_partition_key_and_those_without_one_are_processed(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    odd = [None, 7, [1, {"a": 2}], "\N{SNOWMAN}", ""]
    async with broker.connect(settings.amqp_url.get_secret_value(), "test") as connection:
        await declare_queues(connection, "shop")
        await bind_consumer(connection, "shop", [("shop.events", SOLD)], 4)
        events = await channel.get_exchange("shop.events")
        for number in range(300, 400):
            await events.publish(sold(number, f"item-{number}"), SOLD)
        for number in range(200, 220):
            await events.publish(sold(number, headers={KEY: odd[number % len(odd)]}), SOLD)
        depths = [found.message_count for name in inbound_queues("shop", 4) if (found := await state(connection, name))]
    assert sum(filter(None, depths)) == 120
    assert min(filter(None, depths)) > 10
    assert len(depths) == 4
    async with consuming(settings, database):

        async def are_processed() -> bool:
            return len(await effects(database)) == 120

        await eventually(are_processed, within=30)
    assert await parked(database) == []


async def test_messages_in_a_queue_that_is_not_in_use_are_processed(
    settings: ServiceSettings, database: Database, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "_DECLARE_INTERVAL", 1.0)
    async with consuming(settings, database):
        queue = await channel.get_queue("shop.inbound")
        await queue.bind("shop.retry", "test")  # no event goes there any more, whatever somebody binds
        await (await channel.get_exchange("shop.retry")).publish(sold(1), "test")
        await eventually(lambda: has_effect(database, "1"), within=40)


@pytest.mark.parametrize("count", [2, 16])
async def test_queues_are_bound_by_name_as_a_broker_that_starts_binds_them(
    settings: ServiceSettings, channel: AbstractChannel, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """With another order, keys would belong to other queues after the broker's next start."""
    bound: list[str] = []
    bind: Any = Channel.queue_bind

    async def recording(self: Channel, queue: str, *arguments: Any, **options: Any) -> Any:
        bound.append(queue)
        return await bind(self, queue, *arguments, **options)

    async with broker.connect(settings.amqp_url.get_secret_value(), "test") as connection:
        await declare_queues(connection, "shop")
        monkeypatch.setattr(Channel, "queue_bind", recording)
        await bind_consumer(connection, "shop", [("shop.events", SOLD)], count)
    assert bound == sorted(f"shop.inbound.{number}" for number in range(count))
