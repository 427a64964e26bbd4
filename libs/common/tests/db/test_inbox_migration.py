"""The inbox is divided by day while consumers use it, also those of the release before."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import alembic.command
import asyncpg
import pytest

from common.db import inbox_by_day
from common.db.database import Database, first_id_at, new_id
from common.db.migrations import config, upgrade
from common.messaging import inbox
from common.settings import ServiceSettings

FOLDER = Path(__file__).parents[1] / "migrations"
OLD_ROWS = """
    INSERT INTO inbox (consumer, event_id, received_at)
    SELECT 'c', CAST(overlay(gen_random_uuid()::text PLACING left(lpad(to_hex(ms), 12, '0'), 8) || '-'
        || right(to_hex(ms), 4) || '-7' FROM 1 FOR 15) AS uuid), to_timestamp(ms / 1000.0)
    FROM (SELECT floor(extract(epoch FROM now() - n * interval '1 hour') * 1000)::bigint AS ms
          FROM generate_series(0, 24 * 40) AS n) AS hours"""
# Of release 0.1.0.
INSERT = """
    INSERT INTO inbox (consumer, event_id) SELECT * FROM unnest($1::text[], $2::uuid[])
    ON CONFLICT DO NOTHING RETURNING event_id"""
DELETE = """
    DELETE FROM inbox WHERE (consumer, event_id) IN (
        SELECT consumer, event_id FROM inbox WHERE received_at < now() - $1::interval
        ORDER BY received_at LIMIT 5000 FOR UPDATE SKIP LOCKED)
    RETURNING received_at"""
DAYS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'inbox'::regclass"


@pytest.fixture
async def connection(settings: ServiceSettings) -> AsyncIterator[Any]:
    """To a database before the migration, with rows of 40 days."""
    url = settings.database_url.get_secret_value()
    await asyncio.to_thread(alembic.command.downgrade, config(FOLDER, url), "0001")
    connection = await asyncpg.connect(url)
    await connection.execute(OLD_ROWS)
    yield connection
    await connection.close()


async def migrate(settings: ServiceSettings) -> bool:
    return await asyncio.to_thread(upgrade, FOLDER, settings.database_url.get_secret_value())


async def first(database: Database, *event_ids: uuid.UUID) -> set[uuid.UUID]:
    async with database.transaction() as session:
        return await inbox.first_deliveries(session, "c", event_ids)


async def ids(connection: Any) -> list[uuid.UUID]:
    return [row["event_id"] for row in await connection.fetch("SELECT event_id FROM inbox ORDER BY event_id")]


async def test_the_old_rows_stay_where_they_are_and_later_days_have_partitions(
    settings: ServiceSettings, database: Database, connection: Any
) -> None:
    table, old = await connection.fetchval("SELECT 'inbox'::regclass::oid"), await ids(connection)
    assert await migrate(settings)
    week = datetime.now(UTC) + timedelta(days=6)
    assert await connection.fetchval("SELECT $1::text::regclass::oid", f"inbox_p{week:%Y%m%d}") == table
    assert await ids(connection) == old
    assert await first(database, *old) == set()
    assert len(await first(database, new_id(), first_id_at(week), first_id_at(week + timedelta(days=1)))) == 3
    assert await connection.fetchval("SELECT count(*) FROM inbox_default") == 1
    await inbox.maintain(database.endpoint, timedelta(days=37))
    assert await connection.fetchval(DAYS) == 2, "the old table has the next days"


async def test_the_old_table_is_dropped_as_a_whole(
    settings: ServiceSettings, database: Database, connection: Any
) -> None:
    assert await migrate(settings)
    now = datetime.now(UTC)
    old, renamed = f"inbox_p{now + timedelta(days=6):%Y%m%d}", f"inbox_p{now - timedelta(days=44):%Y%m%d}"
    end = first_id_at(now - timedelta(days=2))
    for statement in (  # as if it were 50 days later
        f"UPDATE {old} SET received_at = received_at - interval '50 days'",  # noqa: S608 - our own names
        f"DELETE FROM {old} WHERE event_id >= '{end}'",  # noqa: S608 - likewise
        f"ALTER TABLE inbox DETACH PARTITION {old}",
        f"ALTER TABLE {old} RENAME TO {renamed}",
        f"ALTER TABLE inbox ATTACH PARTITION {renamed} FOR VALUES FROM (MINVALUE) TO ('{end}')",
    ):
        await connection.execute(statement)
    await inbox.maintain(database.endpoint)
    await first(database, new_id())
    await inbox.maintain(database.endpoint, timedelta(days=37))
    assert await connection.fetchval("SELECT to_regclass($1)", renamed) is None


async def test_the_statements_of_the_last_release_work_on_the_divided_inbox(
    settings: ServiceSettings, connection: Any
) -> None:
    statement = await connection.prepare(INSERT)  # before the migration, by a running consumer
    event_ids = [(await ids(connection))[0], new_id(), first_id_at(datetime.now(UTC) + timedelta(days=3))]
    await migrate(settings)
    assert {row["event_id"] for row in await statement.fetch(["c"] * 3, event_ids)} == set(event_ids[1:])
    assert await statement.fetch(["c"] * 3, event_ids) == []
    assert len(await connection.fetch(DELETE, timedelta(days=37, minutes=30))) == 3 * 24
    assert await connection.fetchval("SELECT min(received_at) > now() - interval '38 days' FROM inbox")


async def test_each_event_is_new_once_while_the_inbox_is_divided(
    settings: ServiceSettings, database: Database, connection: Any
) -> None:
    seen: list[uuid.UUID] = []
    migration = asyncio.create_task(migrate(settings))
    created = [new_id()]
    while not migration.done():
        created.append(new_id())
        seen += sorted(await first(database, *created[-2:]))  # each twice
    assert await migration
    assert seen == created
    assert await first(database, *created) == set()


@pytest.mark.parametrize("later", [timedelta(days=20), timedelta(days=700_000)])
async def test_ids_from_the_future_are_moved_to_the_default_partition(
    settings: ServiceSettings, database: Database, connection: Any, later: timedelta
) -> None:
    hostile = first_id_at(datetime.now(UTC) + later)
    assert await first(database, hostile) == {hostile}
    assert await migrate(settings)
    assert await first(database, hostile) == set()
    home = await connection.fetchval("SELECT tableoid::regclass::text FROM inbox WHERE event_id = $1", hostile)
    assert home == "inbox_default"


async def test_an_interrupted_migration_disturbs_no_consumer_and_is_completed_by_the_next(
    settings: ServiceSettings, database: Database, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await ids(connection)
    with monkeypatch.context() as patch:
        patch.setattr(inbox_by_day, "_SWAP_INBOX", (*inbox_by_day._SWAP_INBOX, "SELECT 1 / 0"))
        with pytest.raises(Exception, match="division by zero"):
            await migrate(settings)
    event_id = new_id()
    assert await first(database, event_id, *old) == {event_id}
    assert await migrate(settings)
    assert await first(database, event_id, *old) == set()
    assert await connection.fetchval(DAYS) == 2
    far = first_id_at(datetime.now(UTC) + timedelta(days=6))
    assert await first(database, far) == {far}


async def test_it_can_be_reversed(settings: ServiceSettings, database: Database, connection: Any) -> None:
    old = await ids(connection)
    await migrate(settings)
    event_id = first_id_at(datetime.now(UTC) + timedelta(days=3))
    assert await first(database, event_id) == {event_id}
    url = settings.database_url.get_secret_value()
    await asyncio.to_thread(alembic.command.downgrade, config(FOLDER, url), "0001")
    assert await ids(connection) == [*old, event_id]
    assert await first(database, event_id, *old) == set()
