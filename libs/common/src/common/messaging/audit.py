"""The audit trail: what administrators and operators did, recorded in the transaction that does it.

A table in every service, because not every service publishes events. It holds few rows, without names and addresses,
which are kept for good. A service that publishes can record each act as an event as well, so that others can keep it
outside its reach.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Column, DateTime, Index, MetaData, RowMapping, Table, Text, Uuid, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from common.db.database import NAMING, new_id
from common.messaging.cloudevents import Event
from common.messaging.outbox import record
from common.observability.trace import current_request_id

metadata: Final = MetaData(naming_convention=NAMING)

audit_records: Final = Table(
    "audit_records",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text),
    Column("request_id", Text),
    Index(None, "recorded_at", "id"),
)
COLUMNS: Final = ("recorded_at", "actor", "action", "subject", "detail", "request_id")


async def record_act(
    session: AsyncSession,
    action: str,
    subject: object,
    *,
    actor: str,
    detail: str | None = None,
    event: type[Event] | None = None,
) -> None:
    """Records an act in the caller's transaction, which does it. Never commits.

    `actor` is a person's or client's id, or `operator:` and a login name. `subject` is the id of what the act was done
    to. `event` is the service's own class for the event, with the fields `actor`, `action`, `subject`, `detail` and
    `request_id`.
    """
    act = {
        "actor": actor,
        "action": action,
        "subject": str(subject),
        "detail": detail,
        "request_id": current_request_id(),
    }
    record_id = new_id()
    await session.execute(insert(audit_records).values(id=record_id, **act))
    if event is not None:
        await record(session, event.model_validate(act), subject=record_id, version=1)


async def acts_since(session: AsyncSession, since: datetime, *, limit: int) -> Sequence[RowMapping]:
    """The newest `limit` acts since that time, oldest first."""
    columns = [audit_records.c[name] for name in COLUMNS]
    newest = select(*columns).where(audit_records.c.recorded_at >= since)
    newest = newest.order_by(audit_records.c.recorded_at.desc(), audit_records.c.id.desc()).limit(limit)
    return (await session.execute(newest)).mappings().all()[::-1]
