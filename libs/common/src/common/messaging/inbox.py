"""The inbox: which events a consumer has already processed.

A row is written in the transaction of the handler's effect, so that both are committed or neither is.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Column, DateTime, MetaData, Table, Text, Uuid, func
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
    """Marks events as taken by `consumer`, in the caller's transaction; returns those that were not taken before.

    A repeated id, in the table or in `event_ids`, is answered once. (Catching a duplicate-key error instead would abort
    the transaction.)
    """
    if not event_ids:
        return set()
    # Sorted, so that two replicas that hold the same redelivered events wait for each other instead of deadlocking.
    ids = sorted(set(event_ids))
    return set(await session.scalars(_FIRST, {"consumer": [consumer] * len(ids), "event_id": ids}))
