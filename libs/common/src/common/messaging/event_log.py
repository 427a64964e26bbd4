"""The event log: published events in published order, in one partition a day.

Partitions are created ahead and dropped past retention; rows are deleted only from the default partition. The clock is
PostgreSQL's and the log's own: with a relay's, one host with a wrong date could drop the whole history.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, MetaData, Table, func

from common.db.database import NAMING
from common.messaging import unsendable
from common.messaging.outbox import event_columns

log = structlog.get_logger(__name__)

metadata: Final = MetaData(naming_convention=NAMING)

event_log: Final = Table(
    "event_log",
    metadata,
    Column("published_at", DateTime(timezone=True), primary_key=True, server_default=func.now()),
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    *event_columns(),
    Index(None, "subject"),
    Index(None, "position"),
    postgresql_partition_by="RANGE (published_at)",
)

_AHEAD: Final = 3
_LOCK_TIMEOUT: Final = 1000
"""Milliseconds, for which the relay's inserts may have to wait as well."""
_PREFIX: Final = "event_log_p"
_PARTITIONS: Final = """
    SELECT child.relname FROM pg_inherits
    JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent
    WHERE parent.relname = 'event_log'"""
# ATTACH PARTITION takes a lock that does not block readers or the relay's inserts; CREATE ... PARTITION OF does.
_CREATE: Final = """
    CREATE TABLE {name} (LIKE event_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    ALTER TABLE event_log ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"""

# The default partition holds days whose partition was not created in time. TRUNCATE could remove rows that another
# relay is inserting; a DELETE without a limit could exceed the relay's timeout every time.
_DELETE_EXPIRED: Final = """
    DELETE FROM event_log_default WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM event_log_default
        WHERE published_at < least($1, (SELECT min(published_at) FROM event_log_default) + interval '1 day')
        LIMIT 100000))"""
_TODAY: Final = "SELECT (now() AT TIME ZONE 'UTC')::date"
_LAST_DAY: Final = "SELECT (max(published_at) AT TIME ZONE 'UTC')::date FROM event_log"


async def maintain(connection: Any, retention_days: int) -> None:
    """Creates the partitions of today and the next days, and drops a day that is older than `retention_days`.

    A day is old only if it is that much older than the newest event, too, so that a server whose clock jumped ahead
    drops nothing at once.

    `connection` is asyncpg's. Relays take turns; the second finds nothing to do. A step that would wait for a long
    transaction is postponed to the next call: a backup locks every table until it is done, and the relay's inserts
    would queue behind a lock that waits for it.
    """
    today: date = await connection.fetchval(_TODAY)
    oldest = min(today, await connection.fetchval(_LAST_DAY) or today) - timedelta(days=retention_days)
    for step, day in ((_create, today), (_drop, oldest)):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT}")
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('event-log-upkeep'))")
                await step(connection, day)
        except asyncpg.LockNotAvailableError:
            log.warning("event log partition maintenance postponed, table locked")
    await connection.execute(_DELETE_EXPIRED, _start(oldest))
    await unsendable.delete_old(connection, retention_days)


async def _create(connection: Any, today: date) -> None:
    existing = await _partitions(connection)
    for day in (today + timedelta(days=n) for n in range(_AHEAD)):
        if _name(day) not in existing and not await _default_has(connection, day):
            end = day + timedelta(days=1)
            statement = _CREATE.format(name=_name(day), start=f"{day} 00:00+00", end=f"{end} 00:00+00")
            await connection.execute(statement)


async def _drop(connection: Any, oldest: date) -> None:
    expired = (name for name in await _partitions(connection) if name.startswith(_PREFIX) and name < _name(oldest))
    if name := min(expired, default=None):  # one a call: a wrong clock costs a day, and is noticed
        await connection.execute(f"DROP TABLE {name}")
        log.info("event log partition dropped", partition=name)


async def _partitions(connection: Any) -> set[str]:
    return {row["relname"] for row in await connection.fetch(_PARTITIONS)}


def _name(day: date) -> str:
    return f"{_PREFIX}{day:%Y%m%d}"


def _start(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def _default_has(connection: Any, day: date) -> bool:
    """Whether the default partition has rows of that day: in that case its own partition can no longer be attached."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM event_log_default WHERE published_at >= $1 AND published_at < $2)",
        _start(day),
        _start(day) + timedelta(days=1),
    )
    return found
