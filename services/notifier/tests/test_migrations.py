"""Migrations run up, down and up again, and create what the models declare."""

import asyncio

import alembic.command
import asyncpg

from common.db.migrations import config, upgrade
from common.testing.plugin import MakeDatabase

from .conftest import MIGRATIONS


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows} - {"alembic_version"}


async def test_migrations_go_down_to_nothing_and_up_again(make_database: MakeDatabase) -> None:
    url = await make_database(MIGRATIONS)
    before = await tables(url)
    ours = {"contacts", "notifications", "deliveries", "unverified_mails", "webhooks", "webhook_deliveries"}
    ours |= {"webhook_attempts", "webhook_clients"}
    assert before == ours | {"inbox", "inbox_default", "parked_messages", "aggregate_versions", "deferred_messages"}
    await asyncio.to_thread(alembic.command.downgrade, config(MIGRATIONS, url), "base")
    assert await tables(url) == set()
    assert await asyncio.to_thread(upgrade, MIGRATIONS, url)
    assert await tables(url) == before
    assert not await asyncio.to_thread(upgrade, MIGRATIONS, url)


async def test_models_and_migrations_do_not_drift(make_database: MakeDatabase) -> None:
    url = await make_database(MIGRATIONS)
    await asyncio.to_thread(alembic.command.check, config(MIGRATIONS, url))
