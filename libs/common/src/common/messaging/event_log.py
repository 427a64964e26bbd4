"""The event log: published events in published order, in one partition a day.

Partitions are created ahead and dropped past retention; rows are hardly ever deleted.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Integer, MetaData, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

from common.db.database import NAMING

log = structlog.get_logger(__name__)

metadata: Final = MetaData(naming_convention=NAMING)

event_log: Final = Table(
    "event_log",
    metadata,
    Column("published_at", DateTime(timezone=True), primary_key=True, server_default=func.now()),
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("data", JSONB, nullable=False),
    Column("traceparent", Text),
    Index(None, "subject"),
    postgresql_partition_by="RANGE (published_at)",
)

_AHEAD: Final = 3
_LOCK_TIMEOUT: Final = 1000
"""Milliseconds; as long the relay's inserts may wait, too."""
_PREFIX: Final = "event_log_p"
_PARTITIONS: Final = """
    SELECT child.relname FROM pg_inherits
    JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
    WHERE parent.relname = 'event_log'"""
# Attaching a ready table takes a lock that lets readers and the relay's inserts pass; CREATE ... PARTITION OF does not.
_CREATE: Final = """
    CREATE TABLE {name} (LIKE event_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    ALTER TABLE event_log ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"""

# The default partition takes days for which none was made in time. A truncation could take along what another relay is
# inserting; a deletion without a limit could outlast the relay's time-out, again and again.
_FORGET: Final = """
    DELETE FROM event_log_default WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM event_log_default WHERE published_at < $1 LIMIT 100000))"""


async def maintain(connection: Any, retention_days: int) -> None:
    """Makes the partitions of today and the next days and drops those older than `retention_days`.

    `connection` is asyncpg's. One relay at a time does this; another finds nothing to do. What would have to wait for
    somebody's long transaction is left to the next time: a backup holds every table until it is done, and behind a lock
    that waits for it the relay's inserts would wait as well.
    """
    today = datetime.now(UTC).date()
    oldest = today - timedelta(days=retention_days)
    for step, day in ((_make, today), (_drop, oldest)):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT}")
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('event-log-upkeep'))")
                await step(connection, day)
        except asyncpg.LockNotAvailableError:
            log.warning("event log is in use, its partitions are seen to later")
    await connection.execute(_FORGET, _start(oldest))


async def _make(connection: Any, today: date) -> None:
    present = await _present(connection)
    for day in (today + timedelta(days=n) for n in range(_AHEAD)):
        if _name(day) not in present and not await _holds(connection, day):
            end = day + timedelta(days=1)
            statement = _CREATE.format(name=_name(day), start=f"{day} 00:00+00", end=f"{end} 00:00+00")
            await connection.execute(statement)


async def _drop(connection: Any, oldest: date) -> None:
    for name in sorted(await _present(connection)):
        if name.startswith(_PREFIX) and name < _name(oldest):
            await connection.execute(f"DROP TABLE {name}")
            log.info("event log partition dropped", partition=name)


async def _present(connection: Any) -> set[str]:
    return {row["relname"] for row in await connection.fetch(_PARTITIONS)}


def _name(day: date) -> str:
    return f"{_PREFIX}{day:%Y%m%d}"


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def _holds(connection: Any, day: date) -> bool:
    """Whether the default partition took rows of that day: then its partition can't be made any more."""
    taken: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM event_log_default WHERE published_at >= $1 AND published_at < $2)",
        _start(day),
        _start(day) + timedelta(days=1),
    )
    return taken
