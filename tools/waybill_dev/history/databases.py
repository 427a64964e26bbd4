"""What the databases of a stack say at the end of a history."""

from typing import Any

import asyncpg

from waybill_dev.history.rules import History

CONSUMER = "notifier.inbound"
"""It receives all of orders' events."""
UNPUBLISHED = "SELECT event_id::text FROM outbox"
LOGGED = "SELECT event_id::text FROM event_log"
PROCESSED = "SELECT event_id::text FROM inbox WHERE consumer = $1"
PARKED = "SELECT event_id FROM parked_messages WHERE consumer = $1 AND resolved_at IS NULL AND event_id IS NOT NULL"


async def compare(history: History, status: dict[str, Any]) -> None:
    """Adds the violations that only the databases show: what is lost, or both processed and parked."""
    orders = status["services"]["orders"]
    logged, unpublished = await _ids(orders, LOGGED), await _ids(orders, UNPUBLISHED)
    notifier = status["services"]["notifier"]
    processed = await _ids(notifier, PROCESSED, CONSUMER)
    history.end(logged, unpublished, {CONSUMER: processed}, {CONSUMER: await _ids(notifier, PARKED, CONSUMER)})


async def _ids(service: dict[str, Any], query: str, *arguments: str) -> set[str]:
    connection = await asyncpg.connect(service["database_url"], timeout=10)
    try:
        return {row[0] for row in await connection.fetch(query, *arguments)}
    finally:
        await connection.close()
