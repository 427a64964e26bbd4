"""Housekeeping beside the API: every replica tries, none waits for another, nothing is urgent."""

import asyncio
from typing import Final

import structlog

from auth.handlers.upkeep import forget_ended
from common.database import Database, utc_now

log = structlog.get_logger(__name__)

_EVERY: Final = 600.0


async def keep_house(database: Database) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(_EVERY)
        try:
            async with database.transaction() as session:
                forgotten = await forget_ended(session, utc_now())
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round may succeed
            log.warning("ended sessions not removed", error=type(error).__name__)
        else:
            log.info("ended sessions removed", count=forgotten)
