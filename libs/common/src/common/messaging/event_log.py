"""The event log: published events in published order, in one partition a day.

Partitions are created ahead and dropped past retention; rows are deleted only from the default partition.
"""

from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, MetaData, Table, func

from common.db import daily_partitions
from common.db.daily_partitions import DailyPartitions, start_of
from common.db.database import NAMING
from common.messaging import unsendable
from common.messaging.outbox import event_columns

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

_PARTITIONS: Final = DailyPartitions("event_log", "published_at", lambda moment: f"'{moment.isoformat()}'")
_LAST_DAY: Final = "SELECT (max(published_at) AT TIME ZONE 'UTC')::date FROM event_log"
# TRUNCATE could remove rows that another relay is inserting; a DELETE without a limit could exceed the relay's timeout
# every time.
_DELETE_EXPIRED: Final = """
    DELETE FROM event_log_default WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM event_log_default
        WHERE published_at < least($1, (SELECT min(published_at) FROM event_log_default) + interval '1 day')
        LIMIT 100000))"""


async def maintain(connection: Any, retention_days: int) -> None:
    """Creates the partitions of today and the next days, and drops a day that is older than `retention_days`.

    A day is old only if it is that much older than the newest event, too, so that a server whose clock jumped ahead
    drops nothing at once. `connection` is asyncpg's.
    """
    today = await daily_partitions.today(connection)
    newest: date = await connection.fetchval(_LAST_DAY) or today
    oldest = min(today, newest) - timedelta(days=retention_days)
    await daily_partitions.maintain(connection, _PARTITIONS, oldest=oldest)
    await connection.execute(_DELETE_EXPIRED, start_of(oldest))
    await unsendable.delete_old(connection, retention_days)
