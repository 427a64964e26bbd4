"""The inbox: which events a consumer has already taken effect of, and the messages it could not take.

An inbox row is written in the transaction of the effect, so that the two stand or fall together.
"""

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
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

parked_messages: Final = Table(
    "parked_messages",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("consumer", Text, nullable=False),
    Column("event_id", Text),
    Column("type", Text),
    Column("cause", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("properties", JSONB, nullable=False),
    Column("digest", LargeBinary, Computed("sha256(body)", persisted=True), nullable=False),
    Column("parked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("resolved_at", DateTime(timezone=True)),
    Column("resolution", Text),
    Column("reason", Text),
    CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolved"),
    CheckConstraint("resolution IN ('replayed', 'discarded')", name="resolution"),
    Index("ix_parked_messages_parked_at", "parked_at"),
    Index(
        "uq_parked_messages_open",
        "consumer",
        "event_id",
        "digest",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    ),
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
