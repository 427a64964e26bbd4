"""Events that the broker refuses: what they cost the other queues, and which others they delay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import aio_pika
import pytest
from prometheus_client import REGISTRY

from common.db.database import Database, new_id
from common.messaging.outbox import record
from common.messaging.topology import declare_producer
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .relaying import Returned, Sold, counts, equals, has_length, relaying, sell


@asynccontextmanager
async def refusing_queue(amqp_url: str, pattern: str) -> AsyncIterator[None]:
    """A queue on the exchange that is full from the start, as only an administrator can declare one."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await declare_producer(channel, "shop")
        full = await channel.declare_queue("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        await full.bind("shop.events", pattern)
        try:
            yield
        finally:
            await full.delete(if_empty=False)


def refusals(event_type: str) -> float:
    return REGISTRY.get_sample_value("waybill_publish_refused_total", {"type": event_type}) or 0


async def was_refused(times: float) -> bool:
    return refusals("shop.item.sold.v1") >= times


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_queue_that_refuses_costs_the_other_queues_one_copy_for_each_probe(
    settings: ServiceSettings, database: Database, subscriber: list[Any], amqp_url: str, workers: int
) -> None:
    settings = settings.model_copy(update={"relay_partitions": workers})
    sent = [await sell(database, n, subject=f"item-{n % 7}", version=n // 7 + 1) for n in range(100)]
    before = refusals("shop.item.sold.v1")
    async with relaying(settings):
        async with refusing_queue(amqp_url, "#"):
            await eventually(lambda: was_refused(before + 4))
            await eventually(lambda: has_length(subscriber, 4))
            assert len(subscriber) == 4  # not 400: one event is tried, not the batch, and by one worker
            assert await counts(database) == (100, 0)
        await eventually(lambda: equals(counts(database), (0, 100)), within=30)
    assert len(subscriber) == 100 + refusals("shop.item.sold.v1") - before
    first_copies = list(dict.fromkeys(message.message_id for message in subscriber))
    versions: dict[int, list[int]] = {}
    for number in (sent.index(UUID(event_id)) for event_id in first_copies):
        versions.setdefault(number % 7, []).append(number)
    assert versions == {n: list(range(n, 100, 7)) for n in range(7)}


async def test_a_queue_that_begins_to_refuse_costs_each_other_queue_one_batch_and_the_probes(
    settings: ServiceSettings, database: Database, subscriber: list[Any], amqp_url: str
) -> None:
    async with relaying(settings):
        for number in range(1, 11):  # until the relay publishes full batches
            await sell(database, number, subject=new_id())
            await eventually(partial(has_length, subscriber, number))
        async with refusing_queue(amqp_url, "#"):
            subscriber.clear()
            before = refusals("shop.item.sold.v1")
            async with database.transaction() as session:
                for number in range(100):
                    await record(session, Sold(number=number), subject=new_id(), version=1)
            await eventually(lambda: was_refused(before + 104))
            assert len(subscriber) == 104
        await eventually(lambda: equals(counts(database), (0, 110)), within=30)
    assert len(subscriber) == 100 + refusals("shop.item.sold.v1") - before


async def test_a_queue_that_refuses_one_type_delays_only_it_and_its_aggregates_later_events(
    settings: ServiceSettings, database: Database, subscriber: list[Any], amqp_url: str
) -> None:
    async with refusing_queue(amqp_url, "shop.item.returned.v1"):
        async with database.transaction() as session:
            await record(session, Sold(number=1), subject="a", version=1)
            await record(session, Returned(number=2), subject="a", version=2)
            await record(session, Sold(number=3), subject="a", version=3)
            await record(session, Sold(number=4), subject="b", version=1)
        async with relaying(settings):
            await eventually(lambda: equals(counts(database), (2, 2)))
            await sell(database, 5, subject="c")
            await eventually(lambda: equals(counts(database), (2, 3)))
    passed = [message.body for message in subscriber if message.type == "shop.item.sold.v1"]
    assert sorted(passed) == [b'{"number": 1}', b'{"number": 4}', b'{"number": 5}']
