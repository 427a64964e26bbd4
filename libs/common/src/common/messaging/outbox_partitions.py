"""The outbox's partitions, as a worker of the relay uses them: lock, read, move. `connection` is asyncpg's.

The statements name the partitions, because PostgreSQL would plan and probe all of them otherwise. An aggregate's events
are in one partition, so whoever holds a partition's lock keeps the order of its aggregates.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from common.db.shared_tables import OUTBOX_PARTITIONS
from common.messaging.unsendable import SENDABLE

PARTITIONS: Final = range(OUTBOX_PARTITIONS)

_COLUMNS: Final = "event_id, type, subject, version, occurred_at, data, traceparent"
# Held until the end of the transaction. Release 0.1.0 takes the first lock exclusively, for the whole outbox.
_LOCK: Final = """
    SELECT CASE WHEN pg_try_advisory_xact_lock_shared(hashtext('outbox-relay')) THEN ARRAY(
        SELECT partition FROM unnest($1::integer[]) AS partition
        WHERE pg_try_advisory_xact_lock(hashtext('outbox-partition'), partition)) ELSE '{}' END"""
# While types are held: without their events, and without the later events of the same aggregates.
_OTHERS: Final = """
    AND type <> ALL($3::text[]) AND NOT EXISTS (
        SELECT FROM ({waiting}) AS held WHERE held.id > $1 AND held.id <= waiting.id
        AND held.subject = waiting.subject AND held.type = ANY($3::text[]))"""


async def lock(connection: Any, partitions: Sequence[int]) -> tuple[int, ...]:
    """Those of `partitions` that the transaction now holds. No other transaction reads or moves their rows."""
    return tuple(await connection.fetchval(_LOCK, partitions))


async def oldest(
    connection: Any, partitions: tuple[int, ...], after: int, limit: int, held: Sequence[str]
) -> Sequence[Any]:
    """Up to `limit` rows with ids above `after`, in order of their ids. None of the types in `held`."""
    statement = _oldest(partitions, others=bool(held))
    rows: Sequence[Any] = await connection.fetch(statement, after, limit, *([held] if held else ()))
    return rows


async def move(connection: Any, partitions: tuple[int, ...], rows: Sequence[Any]) -> None:
    """Moves rows to the event log. Transactions that move wait for each other's commit.

    So the log has one order, that of its positions and times, in which rows also become visible.
    """
    ids = [[row["id"] for row in rows if row["partition"] == partition] for partition in partitions]
    await connection.execute(_move(partitions), *ids)


@cache
def _oldest(partitions: tuple[int, ...], *, others: bool) -> str:
    # Conditions within the parts would keep PostgreSQL from merging the partitions' indexes in their order.
    waiting = " UNION ALL ".join(
        f"SELECT {n} AS partition, id, {_COLUMNS} FROM outbox_p{n}"  # noqa: S608 - constants
        for n in partitions
    )
    condition = _OTHERS.format(waiting=waiting) if others else ""
    return f"""SELECT * FROM ({waiting}) AS waiting WHERE id > $1 AND {SENDABLE} {condition}
        ORDER BY id LIMIT $2"""  # noqa: S608 - constants


@cache
def _move(partitions: tuple[int, ...]) -> str:
    # By lists of ids, because presence in the outbox means "pending". A cursor would skip rows that commit late.
    deleting = ", ".join(
        f"sent_{n} AS (DELETE FROM outbox_p{n} WHERE id = ANY(${place}::bigint[]) RETURNING *)"  # noqa: S608 - constants
        for place, n in enumerate(partitions, 1)
    )
    sent = " UNION ALL ".join(f"SELECT * FROM sent_{n}" for n in partitions)  # noqa: S608 - constants
    # The time is taken under the lock, and positions are assigned to the sorted rows, so under the lock as well.
    return f"""
        WITH locked AS MATERIALIZED (
            SELECT clock_timestamp() AS published_at
            WHERE pg_advisory_xact_lock(hashtext('event-log-order')) IS NOT NULL
        ), {deleting}
        INSERT INTO event_log (published_at, {_COLUMNS})
        SELECT published_at, {_COLUMNS} FROM ({sent}) AS sent CROSS JOIN locked ORDER BY id"""  # noqa: S608 - constants
