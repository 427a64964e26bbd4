"""Upkeep of a consumer's inbox: what no replay can bring again is forgotten, a bounded number of rows at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import delete, select, tuple_

from common.database import Database, utc_now
from common.inbox import inbox

log = structlog.get_logger(__name__)

EVERY: Final = 3600.0
CHUNK: Final = 5000
MARGIN: Final = timedelta(days=7)
"""Beyond the history that producers keep: for a replay that waits in the queue, and what waited to be published."""


@contextlib.asynccontextmanager
async def inbox_kept(database: Database, history: timedelta) -> AsyncIterator[None]:
    """Forgets, now and every hour, the events that were taken longer ago than `history` and a margin."""
    task = asyncio.create_task(_keep(database, history + MARGIN), name="inbox-upkeep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def forget(database: Database, older_than: timedelta) -> int:
    """Deletes up to `CHUNK` rows in a transaction of its own, and returns how many; waits for no other process."""
    old = (
        select(inbox.c.consumer, inbox.c.event_id)
        .where(inbox.c.received_at < utc_now() - older_than)
        .order_by(inbox.c.received_at)
        .limit(CHUNK)
        .with_for_update(skip_locked=True)
    )
    statement = delete(inbox).where(tuple_(inbox.c.consumer, inbox.c.event_id).in_(old)).returning(inbox.c.event_id)
    async with database.transaction() as session:
        return len((await session.execute(statement)).all())


async def _keep(database: Database, older_than: timedelta) -> None:
    while True:
        try:
            while await forget(database, older_than) == CHUNK:
                pass
        except Exception as error:  # noqa: BLE001 - upkeep that fails is tried again, and stands in no effect's way
            log.warning("inbox not trimmed, will try again", error=type(error).__name__)
        await asyncio.sleep(EVERY)
