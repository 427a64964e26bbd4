"""Figures of what waits in a service's tables, for Prometheus: taken beside the work, for when that stands.

One connection of its own and a query every few seconds; while the database is away the last figures stay.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

import asyncpg
import structlog
from prometheus_client import Gauge

from common.db.database import DRIVER_ERRORS, driver_dsn

log = structlog.get_logger(__name__)

EVERY: Final = 5.0
PENDING: Final = Gauge("waybill_outbox_pending", "Events not yet confirmed by the broker.")
OLDEST: Final = Gauge("waybill_outbox_oldest_age_seconds", "Age of the oldest of them; 0 where there is none.")
PARKED: Final = Gauge("waybill_parked_messages", "Messages that wait for an operator's decision.")

_OUTBOX: Final = """
    SELECT (SELECT count(*) FROM outbox)::float8 AS pending,
           coalesce((SELECT extract(epoch FROM now() - occurred_at) FROM outbox ORDER BY id LIMIT 1), 0)::float8
           AS oldest
"""
_PARKED: Final = "SELECT count(*)::float8 AS parked FROM parked_messages WHERE resolved_at IS NULL"


def outbox_measured(url: str, name: str) -> contextlib.AbstractAsyncContextManager[None]:
    return _measured(url, name, _OUTBOX, {"pending": PENDING, "oldest": OLDEST})


def parked_measured(url: str, name: str) -> contextlib.AbstractAsyncContextManager[None]:
    return _measured(url, name, _PARKED, {"parked": PARKED})


@contextlib.asynccontextmanager
async def _measured(url: str, name: str, query: str, gauges: Mapping[str, Gauge]) -> AsyncIterator[None]:
    task = asyncio.create_task(_measure(url, name, query, gauges), name="backlog")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _measure(url: str, name: str, query: str, gauges: Mapping[str, Gauge]) -> None:
    while True:
        try:
            connection = await asyncpg.connect(
                driver_dsn(url), timeout=5, command_timeout=10, server_settings={"application_name": name}
            )
            try:
                while True:
                    row = await connection.fetchrow(query)
                    for column, gauge in gauges.items():
                        gauge.set(row[column])
                    await asyncio.sleep(EVERY)
            finally:
                connection.terminate()
        except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
            log.debug("backlog not measured", error=type(error).__name__)
            await asyncio.sleep(EVERY)
