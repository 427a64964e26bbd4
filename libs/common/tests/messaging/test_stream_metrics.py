"""How far the stream reaches back, as operators see it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from common.db.database import Database, utc_now
from common.messaging.outbox import record
from common.messaging.stream_metrics import _expression, measuring_stream
from common.messaging.topology import declare_producer
from common.settings import ServiceSettings
from common.testing.plugin import eventually, management

from .relaying import Sold, counts, equals, relaying


@pytest.fixture
async def streamed(settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A channel to a shop whose events are kept in a stream."""
    monkeypatch.setattr(type(settings), "streamed", "shop.item.#")
    monkeypatch.setattr("common.messaging.stream_metrics.EVERY", 0.1)
    async with await aio_pika.connect(settings.amqp_url.get_secret_value()) as connection:
        channel = await connection.channel()
        await declare_producer(channel, "shop", settings.streamed)
        yield channel


async def reach() -> float | None:
    return REGISTRY.get_sample_value("waybill_stream_reach_seconds")


async def publish_day_old_events(settings: ServiceSettings, database: Database) -> None:
    for hours in (24, 23):
        async with database.transaction() as session:
            occurred = utc_now() - timedelta(hours=hours)
            await record(session, Sold(number=1), subject=f"item-{hours}", version=1, occurred_at=occurred)
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (0, 2)))
    async with database.transaction() as session:
        await session.execute(text("UPDATE event_log SET published_at = occurred_at + interval '1 minute'"))


async def test_a_stream_that_has_all_events_of_the_log_reaches_back_without_end(
    settings: ServiceSettings, database: Database, streamed: Any
) -> None:
    await publish_day_old_events(settings, database)
    async with measuring_stream(settings):
        await eventually(lambda: equals(reach(), float("inf")))


async def test_a_stream_that_dropped_events_for_its_size_reaches_back_to_the_oldest_that_is_left(
    settings: ServiceSettings, database: Database, streamed: Any
) -> None:
    await publish_day_old_events(settings, database)
    virtual_host = urlsplit(settings.amqp_url.get_secret_value()).path[1:]
    policy = {"pattern": r"\.events\.log$", "apply-to": "queues", "definition": {"max-length-bytes": 1}}
    async with management() as api:
        (await api.put(f"/api/policies/{virtual_host}/history", json=policy)).raise_for_status()
    exchange = await streamed.get_exchange("shop.events", ensure=False)

    async def publish_a_segment() -> bool:
        """Of events an hour old. A segment has 20 MB; a stream drops the oldest when it begins a new one."""
        big = aio_pika.Message(b" " * 1_000_000, type="shop.item.sold.v1", timestamp=utc_now() - timedelta(hours=1))
        await asyncio.gather(*(exchange.publish(big, "shop.item.sold.v1") for _ in range(21)))
        return 3600 <= (await reach() or 0) < 7200

    async with measuring_stream(settings):
        await eventually(publish_a_segment, within=60)


async def test_a_stream_that_was_lost_and_declared_again_does_not_count_as_whole(
    settings: ServiceSettings, database: Database, streamed: Any
) -> None:
    async def is_short() -> bool:
        return 0 <= (await reach() or -1) < 3600

    await publish_day_old_events(settings, database)
    await streamed.queue_delete("shop.events.log")
    async with measuring_stream(settings):
        await eventually(is_short)
    async with database.transaction() as session:
        await record(session, Sold(number=1), subject="item", version=1)
    async with relaying(settings):
        await eventually(lambda: equals(counts(database), (0, 3)))

    async with measuring_stream(settings):
        await eventually(is_short)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("orders.order.#", r"^orders\.order\..*$"), ("shop.*.sold.v1", r"^shop\.[^.]+\.sold\.v1$")],
)
def test_a_topic_is_turned_into_a_regular_expression(pattern: str, expected: str) -> None:
    assert _expression(pattern) == expected
