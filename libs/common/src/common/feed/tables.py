"""Tables of a producer that offers its event log over HTTP."""

from typing import Final

from sqlalchemy import CheckConstraint, Column, DateTime, Index, MetaData, SmallInteger, Table, Text, Uuid

from common.db.database import NAMING
from common.messaging import outbox, unsendable
from common.messaging.event_log import event_log

metadata: Final = MetaData(naming_convention=NAMING)

_log: Final = event_log.to_metadata(metadata)
Index(None, _log.c.event_id)

processes: Final = Table(
    "stream_processes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("seen_at", DateTime(timezone=True), nullable=False),
)
slots: Final = Table(
    "stream_slots",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("slot", SmallInteger, primary_key=True),
    Column("process", Uuid, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("slot >= 1", name="slot"),
)

PRODUCER: Final = (outbox.metadata, unsendable.metadata, metadata)
"""For `migrations/env.py`, in place of `common.messaging.tables.PRODUCER`."""
