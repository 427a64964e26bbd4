"""Gauges of the outbox and of parked messages, measured independently of the relay's and the consumer's own work.

A query every few seconds on a connection of its own; while the database is unavailable the last values stay.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Final

from prometheus_client import Gauge

from common.db.driver import Endpoint
from common.messaging.unsendable import SENDABLE
from common.runtime.background import background, every

EVERY: Final = 5.0
_REST: Final = 19
"""Times as long as a query took, the next one waits: many deleted rows, which a snapshot keeps, make it long."""
PENDING: Final = Gauge("waybill_outbox_pending", "Events not yet confirmed by the broker.")
OLDEST: Final = Gauge("waybill_outbox_oldest_age_seconds", "Age of the oldest that can be sent; 0 if there is none.")
UNSENDABLE: Final = Gauge("waybill_unsendable_events", "Events that can't be sent and wait for an operator's decision.")
PARKED: Final = Gauge("waybill_parked_messages", "Messages that wait for an operator's decision.")

_OUTBOX: Final = f"""
    SELECT (SELECT count(*) FROM outbox)::float8 AS pending,
           coalesce(
               (SELECT extract(epoch FROM now() - occurred_at) FROM outbox WHERE {SENDABLE} ORDER BY id LIMIT 1), 0
           )::float8 AS oldest,
           (SELECT count(*) FROM unsendable_events WHERE skipped_at IS NULL)::float8 AS unsendable
"""  # noqa: S608 - a constant
_PARKED: Final = "SELECT count(*)::float8 AS parked FROM parked_messages WHERE resolved_at IS NULL"


def measuring_outbox(endpoint: Endpoint, name: str) -> contextlib.AbstractAsyncContextManager[None]:
    return _measuring(endpoint, name, _OUTBOX, {"pending": PENDING, "oldest": OLDEST, "unsendable": UNSENDABLE})


def measuring_parked_messages(endpoint: Endpoint, name: str) -> contextlib.AbstractAsyncContextManager[None]:
    return _measuring(endpoint, name, _PARKED, {"parked": PARKED})


def _measuring(
    endpoint: Endpoint, name: str, query: str, gauges: Mapping[str, Gauge]
) -> contextlib.AbstractAsyncContextManager[None]:
    async def measure() -> None:
        connection = await endpoint.connect(name, timeout=5, command_timeout=10)
        try:
            began = monotonic()
            row = await connection.fetchrow(query)
            took = monotonic() - began
        finally:
            connection.terminate()
        for column, gauge in gauges.items():
            gauge.set(row[column])
        await asyncio.sleep(_REST * took)

    return background(partial(every, EVERY, measure))
