"""Migrations go up, down and up again, and create what the models declare."""

import asyncio
from pathlib import Path

import alembic.command
import asyncpg

from common.db.migrations import config, upgrade
from common.testing.plugin import MakeDatabase

FOLDER = Path(__file__).parents[1] / "migrations"


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


async def test_migrations_go_down_to_nothing_and_up_again(make_database: MakeDatabase) -> None:
    url = await make_database(FOLDER)
    before = await tables(url)
    assert {"users", "outbox", "event_log", "secret_links"} <= before
    await asyncio.to_thread(alembic.command.downgrade, config(FOLDER, url), "base")
    assert await tables(url) == set()
    assert await asyncio.to_thread(upgrade, FOLDER, url)
    assert await tables(url) == before
    assert not await asyncio.to_thread(upgrade, FOLDER, url)


async def test_models_and_migrations_do_not_drift(make_database: MakeDatabase) -> None:
    url = await make_database(FOLDER)
    await asyncio.to_thread(alembic.command.check, config(FOLDER, url))
