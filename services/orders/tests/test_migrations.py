"""Migrations go up, down and up again, and create exactly what the models declare, constraints included."""

import asyncio
from pathlib import Path

import alembic.command
import asyncpg
from pydantic import SecretStr

from common.db.database import Database
from common.db.migrations import config, upgrade
from common.feed import tables as feed_tables
from common.messaging import tables
from common.testing.plugin import MakeDatabase
from orders.models import Base
from orders.settings import Settings

FOLDER = Path(__file__).parents[1] / "migrations"

# Alembic's own comparison ignores CHECK constraints and expressions, so compare PostgreSQL's definitions.
_DEFINITIONS = """
    SELECT format('%s.%s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN 'NOT NULL' END) AS definition
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
      AND NOT c.relispartition AND c.relname <> 'alembic_version'
    UNION ALL
    SELECT format('%s: %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
      AND conrelid IN (SELECT oid FROM pg_class WHERE NOT relispartition AND relname <> 'alembic_version')
    UNION ALL
    SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND c.relname <> 'alembic_version'
    ORDER BY 1"""

_RECORD = """
    INSERT INTO outbox (event_id, type, subject, version, occurred_at, data)
    SELECT gen_random_uuid(), 'orders.order.placed.v1', n::text, 1, now(), '{}' FROM generate_series(1, 3) n"""
_WAITING = "SELECT id, event_id, type, subject, version, occurred_at, data, traceparent FROM outbox ORDER BY id"


async def definitions(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["definition"] for row in await connection.fetch(_DEFINITIONS)]
    finally:
        await connection.close()


async def test_migrations_go_down_to_nothing_and_up_again(make_database: MakeDatabase) -> None:
    url = await make_database(FOLDER)
    before = await definitions(url)
    await asyncio.to_thread(alembic.command.downgrade, config(FOLDER, url), "base")
    assert await definitions(url) == []
    assert await asyncio.to_thread(upgrade, FOLDER, url)
    assert await definitions(url) == before
    assert not await asyncio.to_thread(upgrade, FOLDER, url)


async def test_models_and_migrations_do_not_drift(settings: Settings, make_database: MakeDatabase) -> None:
    migrated, modelled = await make_database(FOLDER), await make_database(FOLDER)
    await asyncio.to_thread(alembic.command.downgrade, config(FOLDER, modelled), "base")
    database = Database(settings.model_copy(update={"database_url": SecretStr(modelled)}))
    async with database.engine.begin() as connection:
        for metadata in (Base.metadata, *feed_tables.PRODUCER, *tables.CONSUMER, *tables.AUDIT):
            await connection.run_sync(metadata.create_all)
    await database.close()
    assert await definitions(migrated) == await definitions(modelled)


async def test_alembic_finds_nothing_to_generate(make_database: MakeDatabase) -> None:
    url = await make_database(FOLDER)
    await asyncio.to_thread(alembic.command.check, config(FOLDER, url))


async def test_events_that_wait_keep_their_ids_and_order_when_the_outbox_is_partitioned_and_merged(
    make_database: MakeDatabase,
) -> None:
    url = await make_database(FOLDER)
    connection = await asyncpg.connect(url)
    try:
        for step, revision in ((alembic.command.downgrade, "0002"), (alembic.command.upgrade, "head")) * 2:
            await connection.execute(_RECORD)
            before = await connection.fetch(_WAITING)
            await asyncio.to_thread(step, config(FOLDER, url), revision)
            assert await connection.fetch(_WAITING) == before
        await connection.execute(_RECORD)
        assert [row["id"] for row in await connection.fetch(_WAITING)] == list(range(1, 16))
    finally:
        await connection.close()
