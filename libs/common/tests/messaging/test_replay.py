"""Reading the event log while it grows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aio_pika
import asyncpg
import pytest

from common.db.database import Database
from common.messaging.replay import published, replay
from common.messaging.topology import declare_producer
from common.settings import ServiceSettings
from common.testing.plugin import eventually

SINCE = datetime.now(UTC) - timedelta(hours=1)
APPEND = """
    INSERT INTO event_log (event_id, type, subject, version, occurred_at, data)
    VALUES (gen_random_uuid(), 'shop.item.sold.v1', 'item', 1, now(), '{}')"""


@pytest.fixture
async def connections(database: Database) -> AsyncIterator[tuple[Any, Any]]:
    one, other = await asyncpg.connect(database.dsn), await asyncpg.connect(database.dsn)
    yield one, other
    await one.close()
    await other.close()


async def test_a_replay_includes_the_batch_that_the_relay_is_publishing_when_it_starts(
    settings: ServiceSettings, connections: tuple[Any, Any]
) -> None:
    """If that batch was published just before the queue was bound, only the replay can deliver it."""
    relay, watcher = connections
    async with await aio_pika.connect(settings.amqp_url.get_secret_value()) as amqp:
        channel = await amqp.channel()
        await declare_producer(channel, "shop")
        await (await channel.declare_queue("late", exclusive=True)).bind("shop.replay", "late")
        async with relay.transaction():
            assert await relay.fetchval("SELECT pg_try_advisory_xact_lock_shared(hashtext('outbox-relay'))")
            await relay.execute(APPEND)
            replaying = asyncio.create_task(replay(settings, since=SINCE, to_queue="late"))

            async def waits() -> bool:
                return replaying.done() or await watcher.fetchval(
                    "SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                    " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted)"
                )

            await eventually(waits)
        assert await replaying == 1


async def test_a_replay_ends_however_much_is_published_meanwhile(connections: tuple[Any, Any]) -> None:
    reader, relay = connections
    await relay.execute(APPEND)
    count = 0
    async for page in published(reader, SINCE):
        await relay.execute(APPEND)
        count += len(page)
        assert count == 1
