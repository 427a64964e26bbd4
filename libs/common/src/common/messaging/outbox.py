"""The outbox: events recorded in the same transaction as the change they describe.

The table is a queue: a row's presence means "not confirmed by the broker yet". The relay moves confirmed rows to the
event log, so the queue stays small. Its partitions, by a hash of the subject, are shared among the relay's workers:
all events of an aggregate are in one partition.
"""

import uuid
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    insert,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import NAMING, OUTBOX_CHANNEL, new_id, notify_after_commit, utc_now
from common.messaging.cloudevents import Event
from common.observability import history
from common.observability.trace import current_traceparent

metadata: Final = MetaData(naming_convention=NAMING)


def event_columns() -> tuple[Column[Any], ...]:
    """The columns of an event, in the outbox and in the event log. New ones for each table, as SQLAlchemy requires."""
    return (
        Column("event_id", Uuid, nullable=False),
        Column("type", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("version", Integer, nullable=False),
        Column("occurred_at", DateTime(timezone=True), nullable=False),
        Column("data", JSONB, nullable=False),
        Column("traceparent", Text),
    )


outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True)),
    *event_columns(),
    PrimaryKeyConstraint("id", "subject"),
    postgresql_partition_by="HASH (subject)",
)

_INSERT: Final = insert(outbox).inline()  # made once, and asks for no id back


async def record(
    session: AsyncSession,
    event: Event,
    *,
    subject: uuid.UUID | str,
    version: int,
    occurred_at: datetime | None = None,
) -> uuid.UUID:
    """Records an event in the caller's transaction and returns its id. Never commits.

    `subject` is the aggregate's id and `version` its version after the change (from 1, without a gap). The caller holds
    the aggregate's row lock: only then do outbox ids follow versions.
    """
    event_id = new_id()
    row = {
        "event_id": event_id,
        "type": event.type,
        "subject": str(subject),
        "version": version,
        "occurred_at": occurred_at or utc_now(),
        "data": event.model_dump(mode="json"),
        "traceparent": current_traceparent(),
    }
    history.note("recording", [(event_id, subject, version)])
    await session.execute(_INSERT, row)
    notify_after_commit(session, OUTBOX_CHANNEL)
    return event_id
