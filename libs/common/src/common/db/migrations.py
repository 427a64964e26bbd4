"""Alembic, configured the same for every service: online, one transaction per migration, shared tables included."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, pool
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from common.db.driver import SESSION, driver_connection
from common.db.revisions import current_revision, newest_revision

log = structlog.get_logger(__name__)

LOCK_POLL_SECONDS = 0.2
_PARTITIONS = ("event_log_", "outbox_p", "inbox_")
"""Beginnings of the names of partitions, which no model declares."""


def run_migrations(metadata: Sequence[MetaData]) -> None:
    """The whole of a service's `migrations/env.py`. Autogeneration and drift compare with `metadata`."""
    context.config.attributes["metadata"] = metadata
    url = make_url(context.config.attributes["url"]).set(drivername="postgresql+asyncpg")
    asyncio.run(_run(url, metadata))


async def _run(url: Any, metadata: Sequence[MetaData]) -> None:
    engine = create_async_engine(url, poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate, metadata)
    finally:
        await engine.dispose()


def _migrate(connection: Connection, metadata: Sequence[MetaData]) -> None:
    # Two replicas must not migrate at once. Polled, because a statement that waits for the lock holds a snapshot, and
    # CREATE INDEX CONCURRENTLY in the other replica would wait for its end: a deadlock.
    while not connection.exec_driver_sql("SELECT pg_try_advisory_lock(hashtext('migrations'))").scalar_one():
        connection.commit()
        time.sleep(LOCK_POLL_SECONDS)
    # Everything else would queue behind a change that waits for a long transaction. Better to fail and be run again.
    connection.exec_driver_sql("SET lock_timeout = '10s'")
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        include_name=lambda name, kind, _: not (kind == "table" and (name or "").startswith(_PARTITIONS)),
        compare_server_default=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def config(folder: Path, url: str) -> Config:
    """Alembic's configuration for the migrations in `folder`."""
    alembic = Config()
    alembic.set_main_option("script_location", str(folder))
    alembic.attributes["url"] = url
    return alembic


def upgrade(folder: Path, url: str) -> bool:
    """Migrates the database to the newest revision. Returns whether anything had to be done.

    A database that a newer version has migrated stays as it is, with a warning: this code works with it.
    """
    current, newest = asyncio.run(_prepare(url)), newest_revision(folder)
    if current > newest:
        log.warning("the database is ahead of this code: nothing to migrate", database=current, code=newest)
    if current >= newest:
        return False
    command.upgrade(config(folder, url), "head")
    return True


async def _prepare(url: str) -> str:
    """The database's revision. Gives the service's role the parameters that a pooler's connections do not bring."""
    async with driver_connection(url) as connection:
        await _keep_session_parameters(connection)
        return await current_revision(connection)


async def _keep_session_parameters(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('session-parameters'))")
        current = dict(await connection.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", [*SESSION]))
        for name in SESSION:
            if current[name] != SESSION[name]:
                database = await connection.fetchval("SELECT quote_ident(current_database())")
                await connection.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET {name} = {SESSION[name]}")
