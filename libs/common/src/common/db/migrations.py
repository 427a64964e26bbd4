"""Alembic, configured the same for every service: online, one transaction per migration, shared tables included."""

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, pool
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from common.db.driver import SESSION, driver_connection

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
    """Migrates the database to the newest revision. Returns whether anything had to be done."""
    asyncio.run(keep_session_parameters(url))
    if asyncio.run(current_revision(url)) == newest_revision(folder):
        return False
    command.upgrade(config(folder, url), "head")
    return True


def newest_revision(folder: Path) -> str:
    """The newest revision, from the numbers in the files' names: comparing needs no start of Alembic."""
    names = [match for path in (folder / "versions").glob("*.py") if (match := re.match(r"\d{4}", path.name))]
    return max((match.group() for match in names), default="")


async def keep_session_parameters(url: str) -> None:
    """Gives the service's role the parameters that a pooler's connections do not bring, where they are missing."""
    async with driver_connection(url) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('session-parameters'))")
        current = dict(await connection.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", [*SESSION]))
        for name in SESSION:
            if current[name] != SESSION[name]:
                database = await connection.fetchval("SELECT quote_ident(current_database())")
                await connection.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET {name} = {SESSION[name]}")


async def current_revision(url: str) -> str | None:
    async with driver_connection(url) as connection:
        try:
            revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        except asyncpg.UndefinedTableError:
            return None
        return revision
