"""The inbox is divided by the day of its event ids: what no replay can repeat is dropped by whole days."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aio_pika.abc import AbstractChannel

from common.db.database import Database, first_id_at, new_id
from common.messaging import inbox
from common.settings import ServiceSettings
from common.testing.plugin import eventually

from .consuming import consuming, has_effect, publish

KEPT = timedelta(days=37)
FOREIGN = uuid.UUID("9f0c2a52-52f5-4f3a-8d53-d2b3f0c7a001")
FAR_FUTURE = first_id_at(datetime(4000, 1, 1, tzinfo=UTC))


def today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def name(day: datetime) -> str:
    return f"inbox_p{day:%Y%m%d}"


def id_of(day: datetime) -> uuid.UUID:
    return first_id_at(day + timedelta(hours=12))


@asynccontextmanager
async def connected(database: Database) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database.dsn)
    try:
        yield connection
    finally:
        connection.terminate()


async def partitions(connection: Any) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'inbox'::regclass"
    )
    return sorted(row["name"] for row in rows)


async def homes(connection: Any) -> dict[uuid.UUID, str]:
    """Which partition holds each event."""
    return {
        row["event_id"]: row["name"]
        for row in await connection.fetch("SELECT event_id, tableoid::regclass::text AS name FROM inbox")
    }


async def divide(connection: Any, *days: datetime) -> None:
    """Creates these days' partitions, as an earlier maintenance did."""
    for day in days:
        bounds = f"FROM ('{first_id_at(day)}') TO ('{first_id_at(day + timedelta(days=1))}')"
        await connection.execute(f"CREATE TABLE {name(day)} PARTITION OF inbox FOR VALUES {bounds}")


async def receive(connection: Any, event_id: uuid.UUID, received_at: datetime) -> None:
    await connection.execute("INSERT INTO inbox VALUES ('c', $1, $2)", event_id, received_at)


async def new(database: Database, *event_ids: uuid.UUID) -> set[uuid.UUID]:
    async with database.transaction() as session:
        return await inbox.first_deliveries(session, "c", event_ids)


async def test_the_partitions_of_the_next_days_are_created_ahead(database: Database) -> None:
    days = [today() + timedelta(days=ahead) for ahead in range(3)]
    for _ in range(2):
        await inbox.maintain(database.endpoint, KEPT)
    ids = [new_id(), *(id_of(day) for day in days[1:])]
    assert await new(database, *ids) == set(ids)
    async with connected(database) as connection:
        assert await partitions(connection) == ["inbox_default", *map(name, days)]
        assert await homes(connection) == dict(zip(ids, map(name, days), strict=True))


async def test_a_consumer_has_todays_partition_before_its_first_event(
    settings: ServiceSettings, database: Database, channel: AbstractChannel
) -> None:
    async with consuming(settings, database):
        event_id = await publish(channel, 1)
        await eventually(lambda: has_effect(database, "1"))
    async with connected(database) as connection:
        assert await homes(connection) == {event_id: name(today())}


async def test_a_repetition_is_recognised_in_whichever_partition_it_is(database: Database) -> None:
    """As in a replay of the whole history, and with ids of other producers and from wrong clocks."""
    async with connected(database) as connection:
        await divide(connection, *(today() - timedelta(days=age) for age in (29, 36)))
        await receive(connection, first_id_at(today() - timedelta(days=29)), today() - timedelta(days=29))
    await inbox.maintain(database.endpoint, KEPT)
    ids = [new_id(), *(id_of(today() - timedelta(days=age)) for age in (29, 36, 90)), FOREIGN, FAR_FUTURE]
    assert await new(database, *ids, *ids) == set(ids)
    await inbox.maintain(database.endpoint, KEPT)
    assert await new(database, *ids, first_id_at(today() - timedelta(days=29))) == set()
    async with connected(database) as connection:
        in_default = {event_id for event_id, home in (await homes(connection)).items() if home == "inbox_default"}
    assert in_default == {ids[3], FOREIGN, FAR_FUTURE}


async def test_a_day_is_dropped_when_its_last_row_is_older_than_any_replay(database: Database) -> None:
    """An event can be recorded long before it is published, and a new consumer receives old ones."""
    late, expired, kept = (today() - timedelta(days=age) for age in (40, 38, 37))
    async with connected(database) as connection:
        await divide(connection, late, expired, kept)
        for day in (late, expired, kept):
            await receive(connection, id_of(day), day + timedelta(hours=12))
        await receive(connection, first_id_at(late), today() - timedelta(days=36))
        await receive(connection, new_id(), datetime.now(UTC))
        await inbox.maintain(database.endpoint, KEPT)
        await inbox.maintain(database.endpoint, KEPT)
        assert await new(database, first_id_at(late), id_of(late), id_of(kept)) == set()
        assert name(expired) not in await partitions(connection)
        await connection.execute("DELETE FROM inbox WHERE event_id = $1", first_id_at(late))
        await inbox.maintain(database.endpoint, KEPT)
        assert name(late) not in await partitions(connection)


async def test_a_clock_that_is_40_days_ahead_costs_a_day_at_a_time(database: Database) -> None:
    """To PostgreSQL with such a clock, rows of the last days look like these. Only new events of its day confirm it."""
    days = [today() - timedelta(days=age) for age in (42, 41, 40, 39)]
    async with connected(database) as connection:
        await divide(connection, *days)
        for day in days:
            await receive(connection, id_of(day), day)
        for left in (4, 3, 2, 1):
            await inbox.maintain(database.endpoint, KEPT)
            old = [home for home in (await homes(connection)).values() if home in map(name, days)]
            assert old == [name(day) for day in days[-left:]]
            if left == 4:
                await receive(connection, new_id(), datetime.now(UTC))


async def test_days_that_the_default_partition_has_rows_of_stay_there(database: Database) -> None:
    """Those of today and of the day after: reading today's rows would block the consumers that write them."""
    event_id = new_id()
    assert await new(database, event_id) == {event_id}
    await inbox.maintain(database.endpoint, KEPT)
    async with connected(database) as connection:
        assert await partitions(connection) == ["inbox_default", name(today() + timedelta(days=2))]
    assert await new(database, event_id) == set()


async def test_a_long_transaction_postpones_the_maintenance_and_blocks_no_consumer(database: Database) -> None:
    expired = today() - timedelta(days=38)
    async with connected(database) as connection, connected(database) as long:
        await divide(connection, expired)
        assert await new(database, event_id := new_id()) == {event_id}
        transaction = long.transaction()
        await transaction.start()
        await long.execute("SELECT FROM inbox")
        async with asyncio.timeout(20):
            maintenance = asyncio.create_task(inbox.maintain(database.endpoint, KEPT))
            while not maintenance.done():
                event_id = new_id()
                assert await new(database, event_id) == {event_id}
            await maintenance
        assert name(expired) in await partitions(connection)
        await transaction.rollback()
        await inbox.maintain(database.endpoint, KEPT)
        assert name(expired) not in await partitions(connection)


async def test_a_maintenance_that_is_cut_off_is_completed_by_the_next(database: Database) -> None:
    expired = today() - timedelta(days=38)
    async with connected(database) as connection, connected(database) as long:
        await divide(connection, expired)
        async with long.transaction():
            await long.execute("LOCK TABLE inbox IN SHARE UPDATE EXCLUSIVE MODE")
            maintenance = asyncio.create_task(inbox.maintain(database.endpoint, KEPT))
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%ATTACH PARTITION%'"
            await eventually(lambda: connection.fetchval(f"{cut} AND wait_event_type = 'Lock'"))
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await maintenance
        assert await partitions(connection) == ["inbox_default", name(expired)]
        await inbox.maintain(database.endpoint, KEPT)
        days = [today() + timedelta(days=ahead) for ahead in range(3)]
        assert await partitions(connection) == ["inbox_default", name(expired), *map(name, days)]
        await new(database, new_id())
        await inbox.maintain(database.endpoint, KEPT)
        assert await partitions(connection) == ["inbox_default", *map(name, days)]
