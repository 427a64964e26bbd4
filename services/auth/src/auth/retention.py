"""Deletes rows that no unexpired token refers to. Every API replica runs this; they do not coordinate."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from auth.models import Client, RevokedToken, Session
from common.db.database import Database, utc_now

CLEANUP_SECONDS: Final = 600.0
_BATCH: Final = 1_000
_ENDED_SESSIONS_KEPT: Final = timedelta(days=7)
_REVOCATIONS_KEPT: Final = timedelta(hours=1)
"""Longer than the lifetime of any access token."""


async def delete_expired(session: AsyncSession, now: datetime) -> int:
    """Deletes up to `_BATCH` ended sessions and all old revoked tokens and deleted clients. Returns the row count."""
    ended = or_(
        Session.revoked_at < now - _ENDED_SESSIONS_KEPT,
        (Session.revoked_at.is_(None)) & (Session.idle_until < now - _ENDED_SESSIONS_KEPT),
    )
    statements = (
        delete(Session).where(Session.id.in_(select(Session.id).where(ended).limit(_BATCH))).returning(Session.id),
        delete(RevokedToken).where(RevokedToken.revoked_at < now - _REVOCATIONS_KEPT).returning(RevokedToken.sid),
        delete(Client).where(Client.deleted_at < now - _REVOCATIONS_KEPT).returning(Client.id),
    )
    return sum([len((await session.execute(statement)).all()) for statement in statements])


async def run_cleanup(database: Database) -> None:
    """Calls `delete_expired`, a transaction each, until a batch is not full."""
    deleted = _BATCH
    while deleted >= _BATCH:
        async with database.transaction() as session:
            deleted = await delete_expired(session, utc_now())
