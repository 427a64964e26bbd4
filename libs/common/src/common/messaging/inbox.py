"""The inbox: which events a consumer has already processed.

A row is written in the transaction of the handler's effect, so that both are committed or neither is.

Event ids are UUIDv7 and begin with their time. So the table has a partition per day of the ids, and its key is still
unique. Ids of other kinds or from a wrong clock are in the default partition, the only one whose rows are deleted.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Column, DateTime, MetaData, Table, Text, Uuid, delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from common.db import daily_partitions
from common.db.bulk import insert_rows
from common.db.daily_partitions import DailyPartitions, start_of
from common.db.database import NAMING, first_id_at
from common.db.driver import Endpoint

metadata: Final = MetaData(naming_convention=NAMING)

inbox: Final = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    postgresql_partition_by="RANGE (event_id)",
)
default_partition: Final = inbox.to_metadata(MetaData(), name="inbox_default")

_PARTITIONS: Final = DailyPartitions(
    "inbox", "event_id", lambda moment: f"'{first_id_at(moment)}'", written_at="received_at"
)

_IS_FED: Final = "SELECT EXISTS (SELECT FROM inbox WHERE event_id >= $1)"
_FIRST: Final = insert_rows(inbox, "consumer", "event_id").on_conflict_do_nothing().returning(inbox.c.event_id)


async def first_deliveries(session: AsyncSession, consumer: str, event_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Marks events as processed by `consumer` in the caller's transaction. Returns those that were not marked before.

    An id that occurs twice in `event_ids` is returned once. (A duplicate-key error would abort the transaction.)
    """
    if not event_ids:
        return set()
    # Sorted, so that two replicas with the same redelivered events wait for each other instead of deadlocking.
    ids = sorted(set(event_ids))
    return set(await session.scalars(_FIRST, {"consumer": [consumer] * len(ids), "event_id": ids}))


async def maintain(endpoint: Endpoint, kept: timedelta | None = None) -> None:
    """Creates the partitions of today and the next days. With `kept`, drops one whose last row is older than that.

    An id's time alone does not prove that a row is old: its event may have waited in the outbox, or a replay may have
    brought it to a new consumer. Nor does PostgreSQL's clock alone: none is dropped without events of today or
    yesterday, whose ids have their producers' clocks.
    """
    connection = await endpoint.connect("inbox-upkeep", timeout=10, command_timeout=30)
    try:
        today, oldest = await daily_partitions.today(connection), None
        if kept is not None and await connection.fetchval(_IS_FED, first_id_at(start_of(today - timedelta(days=1)))):
            oldest = today - kept
        await daily_partitions.maintain(connection, _PARTITIONS, oldest=oldest)
    finally:
        connection.terminate()


async def is_processed(session: AsyncSession, consumer: str, event_id: uuid.UUID) -> bool:
    """Whether `consumer` has processed the event. If not, no copy of it is processed until the transaction ends."""
    if event_id not in await first_deliveries(session, consumer, [event_id]):
        return True
    # Its row was the lock: another transaction that inserts the same one waits until this transaction ends.
    await session.execute(delete(inbox).where(inbox.c.consumer == consumer, inbox.c.event_id == event_id))
    return False
