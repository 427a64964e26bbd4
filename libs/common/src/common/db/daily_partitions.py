"""Tables with a partition a day: what expires is dropped as a whole, and nothing of it is deleted row by row.

Partitions are created ahead. The default partition holds the rows of a day whose partition was not created in time, and
those whose key is far from the present. The clock is PostgreSQL's: with a process's own, one host with a wrong date
could drop a whole history.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog

log = structlog.get_logger(__name__)

_AHEAD: Final = 3
_LOCK_TIMEOUT: Final = 1000
"""Milliseconds, for which others' inserts may have to wait as well."""
_STATEMENT_TIMEOUT: Final = 5000
"""Milliseconds, for which inserts into the default partition may have to wait while it is read."""
_TODAY: Final = "SELECT (now() AT TIME ZONE 'UTC')::date"
_PARTITIONS: Final = "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::regclass"
# ATTACH PARTITION takes a lock that does not block readers or inserts; CREATE ... PARTITION OF does.
_CREATE: Final = """
    CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})"""
# A block of this index is summarised when it is full: an insert costs nothing.
_INDEX: Final = "CREATE INDEX {name}_{column} ON {name} USING brin ({column}) WITH (autosummarize = on)"


@dataclass(frozen=True, slots=True)
class DailyPartitions:
    table: str
    key: str
    bound: Callable[[datetime], str]
    """The smallest key of a moment, as an SQL literal."""
    written_at: str | None = None
    """The column with the time of the insert, if the key's may be another: then a day is dropped only if nothing was
    written to it since the time for which rows are kept.
    """

    def name(self, day: date) -> str:
        return f"{self.table}_p{day:%Y%m%d}"

    def bounds(self, day: date) -> tuple[str, str]:
        return self.bound(start_of(day)), self.bound(start_of(day + timedelta(days=1)))


def start_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def today(connection: Any) -> date:
    """The day in UTC by PostgreSQL's clock."""
    day: date = await connection.fetchval(_TODAY)
    return day


async def maintain(connection: Any, partitions: DailyPartitions, *, oldest: date | None) -> None:
    """Creates the partitions of today and the next days. Drops at most one of a day before `oldest`, if that is given.

    `connection` is asyncpg's. Processes take turns; the second finds nothing to do. A step that would wait for a long
    transaction is postponed to the next call: a backup locks every table until it is done, and others' inserts would
    queue behind a lock that waits for it.
    """
    for step, day in ((_create, await today(connection)), (_drop, oldest)):
        if day is None:
            return
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT}")
                await connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT}")
                turn = f"{partitions.table.replace('_', '-')}-upkeep"
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", turn)
                await step(connection, partitions, day)
        except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
            reason = type(error).__name__
            log.warning("partition maintenance postponed", table=partitions.table, reason=reason)


async def _create(connection: Any, partitions: DailyPartitions, first: date) -> None:
    existing = await _names(connection, partitions)
    # The first may reach back further than its name says: a table from before there were partitions.
    oldest = min((name for name in existing if name.startswith(f"{partitions.table}_p")), default="")
    for day in (first + timedelta(days=n) for n in range(_AHEAD)):
        name = partitions.name(day)
        if name in existing or name < oldest or await _default_has(connection, partitions, day):
            continue
        start, end = partitions.bounds(day)
        await connection.execute(_CREATE.format(name=name, table=partitions.table, start=start, end=end))
        if partitions.written_at:
            await connection.execute(_INDEX.format(name=name, column=partitions.written_at))


async def _drop(connection: Any, partitions: DailyPartitions, oldest: date) -> None:
    """Drops one: a wrong clock costs a day, and is noticed."""
    first_kept = partitions.name(oldest)
    for name in sorted(await _names(connection, partitions)):
        if name.startswith(f"{partitions.table}_p") and name < first_kept:
            if await _is_written_since(connection, partitions, name, oldest):
                continue
            await connection.execute(f"LOCK TABLE ONLY {partitions.table} IN ACCESS EXCLUSIVE MODE")
            if not await _is_written_since(connection, partitions, name, oldest):
                await connection.execute(f"DROP TABLE {name}")
                log.info("partition dropped", table=partitions.table, partition=name)
            return


async def _names(connection: Any, partitions: DailyPartitions) -> set[str]:
    return {row["name"] for row in await connection.fetch(_PARTITIONS, partitions.table)}


async def _is_written_since(connection: Any, partitions: DailyPartitions, name: str, day: date) -> bool:
    if partitions.written_at is None:
        return False
    query = f"SELECT EXISTS (SELECT FROM {name} WHERE {partitions.written_at} >= $1)"  # noqa: S608 - our own names
    found: bool = await connection.fetchval(query, start_of(day))
    return found


async def _default_has(connection: Any, partitions: DailyPartitions, day: date) -> bool:
    """Whether the default partition has rows of that day, so that its own partition can't be attached, or of the day
    before: it then takes today's inserts, which would wait while ATTACH PARTITION reads all of it.
    """
    (start, _), (_, end) = partitions.bounds(day - timedelta(days=1)), partitions.bounds(day)
    condition = f"{partitions.key} >= {start} AND {partitions.key} < {end}"
    query = f"SELECT EXISTS (SELECT FROM {partitions.table}_default WHERE {condition})"  # noqa: S608 - our own names
    found: bool = await connection.fetchval(query)
    return found
