"""Upkeep of what a consumer remembers: what no replay can bring again is forgotten, some thousand rows at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Column, delete, select, tuple_

from common.db.database import Database, utc_now

log = structlog.get_logger(__name__)

EVERY: Final = 3600.0
CHUNK: Final = 5000
MARGIN: Final = timedelta(days=7)
"""Beyond the history that producers keep: for a replay that waits in the queue, and what waited to be published."""


@contextlib.asynccontextmanager
async def forgetting(database: Database, moments: Sequence[Column[Any]], history: timedelta) -> AsyncIterator[None]:
    """Deletes, now and every hour, rows whose moment (a column) is longer ago than `history` and a margin."""
    task = asyncio.create_task(_keep(database, moments, history + MARGIN), name="upkeep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def forget(database: Database, moment: Column[Any], older_than: timedelta) -> int:
    """Deletes up to `CHUNK` rows in a transaction of its own, and returns how many; waits for no other process."""
    table, key = moment.table, moment.table.primary_key.columns
    old = (
        select(*key)
        .where(moment < utc_now() - older_than)
        .order_by(moment)
        .limit(CHUNK)
        .with_for_update(skip_locked=True)
    )
    statement = delete(table).where(tuple_(*key).in_(old)).returning(moment)
    async with database.transaction() as session:
        return len((await session.execute(statement)).all())


async def _keep(database: Database, moments: Sequence[Column[Any]], older_than: timedelta) -> None:
    while True:
        try:
            for moment in moments:
                while await forget(database, moment, older_than) == CHUNK:
                    pass
        except Exception as error:  # noqa: BLE001 - upkeep that fails is tried again, and stands in no effect's way
            log.warning("upkeep failed, will try again", error=type(error).__name__)
        await asyncio.sleep(EVERY)
