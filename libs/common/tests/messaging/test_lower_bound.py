"""Where the relay begins to read: rows that commit late are not skipped, deleted ones are not read again."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from common.db.database import Database, new_id
from common.messaging import broker
from common.messaging.outbox_partitions import PARTITIONS, _oldest
from common.messaging.publisher import Publisher
from common.messaging.relay_worker import Worker
from common.settings import ServiceSettings

from .relaying import counts, sell

INSERT = """
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)
    SELECT gen_random_uuid(), 'shop.item.sold.v1', $1 || n, 1, now(), '{}' FROM generate_series(1, $2::integer) n"""


@pytest.fixture(autouse=True)
def _looking_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.messaging.lower_bound._INTERVAL", 0)


@asynccontextmanager
async def working(settings: ServiceSettings, database: Database) -> AsyncIterator[Worker]:
    """A worker whose batches the test starts."""
    async with broker.connect(settings.amqp_url.get_secret_value(), "test") as amqp:
        connection = await asyncpg.connect(database.dsn)
        try:
            worker = Worker(Publisher("shop"), connection, amqp)
            worker.assign(tuple(PARTITIONS))
            await worker.open()
            yield worker
        finally:
            await connection.close()


async def publish(worker: Worker, database: Database, times: int = 3) -> int:
    """Publishes some events, each in a batch, and returns the id after which the next batch reads."""
    for number in range(times):
        await sell(database, number, subject=new_id())
        await worker._batch()
    return await bound(worker)


async def bound(worker: Worker) -> int:
    return worker._bound.after(sweep=False)


async def test_the_bound_follows_what_was_published(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with working(settings, database) as worker:
        assert await publish(worker, database, 1) == 0
        first = await publish(worker, database)
        assert 0 < first < await publish(worker, database)


async def test_a_row_that_commits_late_is_published_before_the_later_event_of_its_aggregate(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    writer = await asyncpg.connect(database.dsn)
    try:
        async with working(settings, database) as worker:
            before = await publish(worker, database)
            async with writer.transaction():
                await writer.execute(INSERT, "late", 1)  # has its id, and is not visible
                stays = await publish(worker, database, 10)
            await sell(database, 2, subject="late1", version=2)
            await worker._batch()
            assert await counts(database) == (0, 15)
            assert before <= stays < await publish(worker, database, 4)
    finally:
        await writer.close()
    versions = [
        message.headers["cloudEvents_aggregateversion"]
        for message in subscriber
        if message.headers["cloudEvents_subject"] == "late1"
    ]
    assert versions == [1, 2]


async def test_a_row_that_cannot_be_sent_holds_the_bound(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    async with working(settings, database) as worker:
        before = await publish(worker, database)
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql(INSERT.replace("'shop.item.sold.v1'", "repeat('x', 300)"), ("odd", 1))
        odd = await worker._database.fetchval("SELECT id FROM outbox")
        assert before < odd
        assert await publish(worker, database, 10) < odd


async def test_a_sweep_finds_a_row_below_the_bound(
    settings: ServiceSettings, database: Database, subscriber: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(settings, database) as worker:
        before = await publish(worker, database)
        await worker._database.execute(
            INSERT.replace("INTO outbox (", "INTO outbox (id, ").replace(
                "SELECT gen", "OVERRIDING SYSTEM VALUE SELECT 1, gen"
            ),
            "restored",
            1,
        )
        await worker._batch()
        assert await counts(database) == (1, 3)
        with monkeypatch.context() as soon:
            soon.setattr("common.messaging.lower_bound._SWEEP", 0)
            await worker._batch()
        assert await counts(database) == (0, 4)
        await publish(worker, database, 1)
        assert await bound(worker) >= before


async def test_a_batch_reads_as_little_under_a_held_snapshot_however_much_was_published_since(
    settings: ServiceSettings, database: Database, subscriber: list[Any]
) -> None:
    backup = await asyncpg.connect(database.dsn)
    try:
        async with working(settings, database) as worker, backup.transaction(isolation="repeatable_read"):
            await publish(worker, database)
            await backup.execute("SELECT count(*) FROM outbox")
            await worker._database.execute(INSERT, "gone", 200_000)
            await worker._database.execute("DELETE FROM outbox")
            assert await blocks(worker, 0) > 3000  # what a reader without a bound reads, for no row
            after = await publish(worker, database)
            assert await blocks(worker, after) < 50
    finally:
        await backup.close()


async def blocks(worker: Worker, after: int) -> int:
    """How many blocks of heap and index the statement of a batch reads."""
    statement = _oldest(tuple(PARTITIONS), others=False).replace("$1", str(after)).replace("$2", "500")
    await worker._database.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    plan = json.loads(await worker._database.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"))
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])
