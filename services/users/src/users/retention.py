"""Deletes what is over, now and then, in every API process: rarely enough that none need know of the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import structlog

from common.db.database import Database
from common.db.outages import is_outage
from users import queries
from users.credentials import throttle

log = structlog.get_logger(__name__)

_EVERY: Final = 600.0


async def forget_old(database: Database) -> None:
    async with database.transaction() as session:
        await throttle.forget_old(session)
        await queries.forget_old(session)


@contextlib.asynccontextmanager
async def running(database: Database) -> AsyncIterator[None]:
    """Upkeep for the length of the block."""
    task = asyncio.create_task(_run(database), name="upkeep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run(database: Database) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        try:
            await forget_old(database)
        except Exception as error:
            log.warning("upkeep put off", error=type(error).__name__, exc_info=not is_outage(error))
