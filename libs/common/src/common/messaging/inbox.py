"""The inbox: which events a consumer has already processed.

A row is written in the transaction of the handler's effect, so that both are committed or neither is.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Column, DateTime, MetaData, Table, Text, Uuid, delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.bulk import insert_rows
from common.db.database import NAMING

metadata: Final = MetaData(naming_convention=NAMING)

inbox: Final = Table(
    "inbox",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("event_id", Uuid, primary_key=True),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now(), index=True),
)

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


async def is_processed(session: AsyncSession, consumer: str, event_id: uuid.UUID) -> bool:
    """Whether `consumer` has processed the event. If not, no copy of it is processed until the transaction ends."""
    if event_id not in await first_deliveries(session, consumer, [event_id]):
        return True
    # Its row was the lock: another transaction that inserts the same one waits until this transaction ends.
    await session.execute(delete(inbox).where(inbox.c.consumer == consumer, inbox.c.event_id == event_id))
    return False
