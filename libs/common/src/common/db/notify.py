"""Waiting for whichever comes first, and hearing NOTIFY: the quick way to learn of new work, beside a poll."""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from common.db.database import DRIVER_ERRORS

log = structlog.get_logger(__name__)

_PAUSE: Final = 1.0


async def listen(channel: str, wake: Callable[[], None], *, dsn: str, name: str) -> None:
    """Calls `wake` whenever `channel` is rung, until cancelled. Its connection comes back by itself."""
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=5, server_settings={"application_name": name})
            try:
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(channel, lambda *_: wake())
                wake()  # for what was rung while nobody listened
                await lost.wait()
            finally:
                connection.terminate()
        except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
            log.warning("not listening, the poll finds what is due", channel=channel, error=type(error).__name__)
        await asyncio.sleep(_PAUSE)
