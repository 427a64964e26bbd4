"""Events that can't be sent, whatever the broker does, such as one whose type is longer than AMQP allows.

The relay notes them here and reads past them. The event stays in the outbox, and later events of its aggregate wait
behind it, until an operator skips it or, after a fix, lets the relay try it again. Everything else is published.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, MetaData, Table, Text, func

from common.db.database import NAMING
from common.messaging.outbox import event_columns

metadata: Final = MetaData(naming_convention=NAMING)

unsendable_events: Final = Table(
    "unsendable_events",
    metadata,
    Column("outbox_id", BigInteger, primary_key=True, autoincrement=False),
    *event_columns(),
    Column("error", Text, nullable=False),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("skipped_at", DateTime(timezone=True)),
    Column("reason", Text),
    CheckConstraint("(skipped_at IS NULL) = (reason IS NULL)", name="skipped"),
)

SENDABLE: Final = "subject NOT IN (SELECT subject FROM unsendable_events WHERE skipped_at IS NULL)"
"""Condition on rows of the outbox. PostgreSQL evaluates the subquery once: without such events it costs nothing."""
_EVENT: Final = "event_id, type, subject, version, occurred_at, data, traceparent"
# Locked, so that an erasure that scrubs the outbox at this moment scrubs the copy as well.
_SET_ASIDE: Final = f"""
    INSERT INTO unsendable_events (outbox_id, {_EVENT}, error)
    SELECT id, {_EVENT}, error FROM outbox JOIN unnest($1::bigint[], $2::text[]) AS failed (id, error) USING (id)
    FOR UPDATE OF outbox"""  # noqa: S608 - constants
_WAITING: Final = """
    SELECT unsendable.event_id AS id, unsendable.type, unsendable.subject, unsendable.version, error, found_at,
           count(later.id) AS waiting_behind
    FROM unsendable_events AS unsendable
    LEFT JOIN outbox AS later ON later.subject = unsendable.subject AND later.id > outbox_id
    WHERE skipped_at IS NULL GROUP BY unsendable.outbox_id ORDER BY unsendable.outbox_id LIMIT $1"""
_SKIP: Final = """
    WITH skipped AS (
        UPDATE unsendable_events SET skipped_at = now(), reason = $2 WHERE event_id = $1 AND skipped_at IS NULL
        RETURNING subject, outbox_id),
    removed AS (
        DELETE FROM outbox USING skipped WHERE outbox.subject = skipped.subject AND outbox.id = outbox_id)
    SELECT EXISTS (SELECT FROM skipped)"""
_RETRY: Final = """
    DELETE FROM unsendable_events WHERE skipped_at IS NULL AND ($1::uuid[] IS NULL OR event_id = ANY($1))
    RETURNING event_id"""
_DELETE_OLD: Final = "DELETE FROM unsendable_events WHERE skipped_at < now() - make_interval(days => $1)"
_LONGEST_ERROR: Final = 1000


async def set_aside(connection: Any, errors: Mapping[int, Exception]) -> None:
    """Notes rows of the outbox, by their ids, in the caller's transaction. `connection` is asyncpg's, here as below."""
    texts = [f"{type(error).__name__}: {error}".replace("\x00", "")[:_LONGEST_ERROR] for error in errors.values()]
    await connection.execute(_SET_ASIDE, list(errors), texts)


async def list_waiting(connection: Any, *, limit: int) -> list[dict[str, Any]]:
    """Events that wait for a decision, oldest first, with the number of later events that wait behind each."""
    return [dict(row) for row in await connection.fetch(_WAITING, limit)]


async def find(connection: Any, event_id: UUID) -> dict[str, Any] | None:
    row = await connection.fetchrow("SELECT * FROM unsendable_events WHERE event_id = $1", event_id)
    return dict(row) if row else None


async def skip(connection: Any, event_id: UUID, reason: str) -> bool:
    """Removes an event from the outbox and keeps it here with the reason. Returns whether it waited for a decision.

    It is never published, so a consumer that keeps the order sees a gap, and passes it after its retry delays.
    """
    skipped: bool = await connection.fetchval(_SKIP, event_id, reason)
    return skipped


async def retry(connection: Any, event_ids: list[UUID] | None) -> set[UUID]:
    """Lets the relay try these events, or all, again. Returns those that waited for a decision."""
    return {row["event_id"] for row in await connection.fetch(_RETRY, event_ids)}


async def delete_old(connection: Any, retention_days: int) -> None:
    """Deletes events that were skipped before that many days."""
    await connection.execute(_DELETE_OLD, retention_days)
