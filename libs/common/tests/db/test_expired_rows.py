"""Expired rows are deleted in chunks, whatever else uses the table."""

from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from common.db import expired_rows
from common.db.database import Database
from common.db.expired_rows import delete_expired
from common.messaging.parked import parked_messages
from common.settings import ServiceSettings
from common.testing.plugin import eventually

ROWS = 2000
READ = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_parked_messages_parked_at'"
OTHERS = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'shop-cleanup'"
AGE = timedelta(days=37)


async def park(database: Database, rows: int) -> None:
    """Old rows, and one of now."""
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO parked_messages (id, consumer, cause, attempts, body, properties, parked_at)"
                " SELECT gen_random_uuid(), 'c', '', 1, int4send(n), '{}', now() - (:rows - n) * interval '1 s'"
                " - interval '37 days 1 hour' FROM generate_series(1, :rows) AS n"
            ),
            {"rows": rows},
        )
        await session.execute(
            text(
                "INSERT INTO parked_messages (id, consumer, cause, attempts, body, properties)"
                " VALUES (gen_random_uuid(), 'c', '', 1, '', '{}')"
            )
        )
        await session.execute(text("ANALYZE parked_messages"))


async def test_each_row_is_read_once_while_a_backup_runs(
    settings: ServiceSettings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL keeps deleted rows for the backup; reading them again with each chunk would never end."""
    monkeypatch.setattr(expired_rows, "CHUNK", 50)
    await park(database, ROWS)
    backup = await asyncpg.connect(database.dsn)
    try:
        async with backup.transaction(isolation="repeatable_read"):
            await backup.execute("SELECT FROM parked_messages")
            async with Database(settings, role="cleanup") as cleaning:
                assert await delete_expired(cleaning, parked_messages.c.parked_at, AGE) == ROWS
            await eventually(lambda: database_is_left(database))  # its counts are complete
            async with database.transaction() as session:
                reads = await session.scalar(text(READ)) or 0
            assert ROWS <= reads <= 2 * ROWS
    finally:
        await backup.close()


async def database_is_left(database: Database) -> bool:
    async with database.transaction() as session:
        return bool(await session.scalar(text(OTHERS)))


async def test_rows_that_others_have_locked_are_skipped_and_deleted_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_rows, "CHUNK", 3)
    await park(database, 10)
    other = await asyncpg.connect(database.dsn)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM parked_messages ORDER BY parked_at LIMIT 2 FOR UPDATE")
            assert await delete_expired(database, parked_messages.c.parked_at, AGE) == 8
        assert await delete_expired(database, parked_messages.c.parked_at, AGE) == 2
    finally:
        await other.close()
